/* nexrender's client: every method it has, and what its users see. */

'use strict'

const assert = require('node:assert')
const test = require('node:test')
const { Followed, add, ask, client, film, host, project, remove, secret } = require('./peers')

test('a job is followed from its creation to its film', async () => {
    const [followed, job] = await add(film(100))
    assert.match(job.uid, /^[A-Za-z0-9_-]{21}$/)
    assert.strictEqual(job.state, 'queued')
    const [name, status] = await followed.until('finished', 'error')
    assert.strictEqual(name, 'finished', status.error)
    assert.ok(status.startedAt <= status.finishedAt)
    const progress = followed.heard.filter(([each]) => each === 'progress').map(([, each, percent]) => [each.state, percent])
    assert.deepStrictEqual(progress.at(-1), ['finished', 100])
    const between = progress.slice(0, -1)
    assert.ok(between.length > 0, 'no progress was seen')
    assert.ok(between.every(([state, percent]) => state === 'render:dorender' && percent > 0 && percent <= 100))
    const names = followed.heard.map(([each]) => each).filter(each => each !== 'progress')
    assert.deepStrictEqual(names.slice(-2), ['render:dorender', 'finished'])
    const output = await ask('GET', `/jobs/${job.uid}/output`)
    assert.strictEqual(output.bytes.subarray(4, 8).toString(), 'ftyp')
})

test('a job can be followed again', async () => {
    const [, { uid }] = await add(film(100))
    const resumed = new Followed(await client().resumeJob(uid))
    assert.strictEqual((await resumed.until('created'))[1].template.composition, 'main')
    assert.strictEqual((await resumed.until('finished', 'error'))[0], 'finished')
})

test('a job that fails says why', async () => {
    const assets = [{ type: 'data', layerName: 'nobody', property: 'red', value: 1 }]
    const [followed] = await add(film(1, { assets }))
    const [name, status] = await followed.until('finished', 'error')
    assert.strictEqual(name, 'error')
    assert.match(status.error, /nobody/)
})

test('a job that is cancelled ends, and the next one is rendered', async () => {
    const [followed, { uid }] = await add(film(100000))
    await followed.until('render:dorender')
    await client().updateJob(uid, { state: 'error', error: 'cancelled' })
    const [name, status] = await followed.until('finished', 'error')
    assert.deepStrictEqual([name, status.error], ['error', 'cancelled'])
    const [next] = await add(film(1))
    assert.strictEqual((await next.until('finished', 'error'))[0], 'finished')
})

test('lists hold whole jobs in the order of creation', async () => {
    const added = []
    for (let n = 0; n < 3; n += 1) {
        added.push(await add(project({ tags: 'listed', mine: { deep: [n] } })))
    }
    const uids = added.map(([, { uid }]) => uid)
    const listed = (await client().listJobs()).filter(job => uids.includes(job.uid))
    assert.deepStrictEqual(listed.map(job => job.uid), uids)
    assert.deepStrictEqual(listed.map(job => job.mine), [{ deep: [0] }, { deep: [1] }, { deep: [2] }])
    await Promise.all(added.map(([followed, { uid }]) => remove(followed, uid)))
})

test('an update lays its keys over the job', async () => {
    const [followed, { uid }] = await add(project({ mine: { a: 1 }, tags: 'updated', uid: 'a.b:c@d+e=f,g_h-i' }))
    assert.strictEqual(uid, 'a.b:c@d+e=f,g_h-i')
    const updated = await client().updateJob(uid, { mine: { b: 2 }, priority: 7 })
    assert.deepStrictEqual([updated.mine, updated.priority, updated.tags], [{ b: 2 }, 7, 'updated'])
    assert.deepStrictEqual(await client().fetchJob(uid), updated)
    await assert.rejects(client().updateJob(uid, { template: { composition: 'x' } }), /template\.src/)
    await client().updateJob(uid, { state: 'finished' })
    await followed.until('finished')
    assert.strictEqual((await client().updateJob(uid, { state: 'queued' })).state, 'queued')
    await client().removeJob(uid)
})

test('a removed job is gone, and who follows it hears so', async () => {
    const [followed, { uid }] = await add(project({ tags: 'removed' }))
    const [answer, heard] = await remove(followed, uid)
    assert.deepStrictEqual(answer, { id: uid, removed: true })
    assert.ok(heard instanceof Error)
    await assert.rejects(client().fetchJob(uid), new RegExp(uid))
})

test('a bad job is refused with the name of the field', async () => {
    await assert.rejects(client().addJob({}), /template/)
    await assert.rejects(client().addJob({ template: { src: 'x' } }), /composition/)
    await assert.rejects(client().addJob(project({ assets: [{ type: 'gif', src: 'x' }] })), /gif/)
    await assert.rejects(client().addJob(project({ actions: { postrender: [{}] } })), /module/)
})

test('tags choose what is picked, and the name is who picks', async () => {
    const [followed, { uid, tags }] = await add(project({ tags: 'gpu, slow!' }))
    assert.strictEqual(tags, 'gpu, slow')
    const worker = client({ name: 'box 7' })
    assert.deepStrictEqual(await worker.pickupJob('GPU'), {})
    assert.deepStrictEqual(await worker.pickupJob('other,%20fast'), {})
    const picked = await worker.pickupJob('other,slow')
    assert.deepStrictEqual([picked.uid, picked.state, picked.executor], [uid, 'picked', 'box 7'])
    assert.strictEqual((await followed.until('picked'))[1].jobExecutor, 'box 7')
    assert.deepStrictEqual(await worker.pickupJob('slow'), {})
    await remove(followed, uid)
})

test('jobs without tags are for who asks without', async () => {
    const [followed, { uid }] = await add(project())
    assert.deepStrictEqual(await client().pickupJob('gpu'), {})
    assert.strictEqual((await client({ name: 'any' }).pickupJob()).uid, uid)
    await remove(followed, uid)
    assert.deepStrictEqual(await client().pickupJob(), {})
})

test('without the secret nobody gets in', async () => {
    for (const wrong of [undefined, '', 'guessed']) {
        await assert.rejects(client({ secret: wrong }).listJobs(), /nexrender-secret/)
        await assert.rejects(client({ secret: wrong }).addJob(project()), /nexrender-secret/)
    }
})

test('headers may be strings and functions', async () => {
    const headers = { 'nexrender-secret': async () => secret, 'x-mine': 'yes' }
    assert.ok(Array.isArray(await client({ secret: undefined, headers }).listJobs()))
})

test('the health check needs no secret', async () => {
    const answer = await fetch(`${host}/api/v1/health`)
    assert.deepStrictEqual([answer.status, await answer.text()], [200, 'ok'])
})
