/* What nexrender's worker sends, in its order, through its own client; After Effects is left out. */

'use strict'

const assert = require('node:assert')
const test = require('node:test')
const { getRenderingStatus } = require('@nexrender/types/job')
const { add, client, project, remove } = require('./peers')

/** A worker called `name` with the selector `tags`. */
class Worker {
    constructor(name, tags) {
        this.client = client({ name, headers: { 'user-agent': 'nexrender-worker/1.63.3' } })
        this.tags = tags
        this.job = {}
    }

    /** The job that it is given, or {}. */
    async pickup() {
        const found = await this.client.pickupJob(this.tags)
        this.job = found.uid ? found : this.job
        return found
    }

    /** The whole job, as it begins. */
    async begin() {
        Object.assign(this.job, { state: 'started', startedAt: new Date() })
        return this.client.updateJob(this.job.uid, this.job)
    }

    /** A status record. */
    async tell(change) {
        Object.assign(this.job, change)
        return this.client.updateJob(this.job.uid, getRenderingStatus(this.job))
    }
}

/** [worker, who follows, uid] of a new job for a worker of its own. */
const begin = async (tag) => {
    const [followed, { uid }] = await add(project({ tags: tag, mine: { kept: ['as', 'it', 'is'] } }))
    return [new Worker(`worker of ${tag}`, tag), followed, uid]
}

test('a run from the pickup to the end is seen by the client', async () => {
    const [worker, followed, uid] = await begin('whole')
    assert.strictEqual((await worker.pickup()).uid, uid)
    assert.strictEqual((await followed.until('picked'))[1].jobExecutor, 'worker of whole')
    assert.strictEqual((await worker.begin()).state, 'started')
    assert.ok((await followed.until('started'))[1].startedAt)
    worker.job.timings = { 'render:setup': 1, 'render:download': 2 }
    for (const percent of [0, 1, 50, 100, 104]) {
        const answer = await worker.tell({ state: 'render:dorender', renderProgress: percent })
        assert.deepStrictEqual([answer.state, answer.renderProgress], ['render:dorender', percent])
    }
    await followed.until('render:dorender')
    const finished = await worker.tell({ state: 'finished', finishedAt: new Date() })
    assert.deepStrictEqual([finished.state, finished.mine], ['finished', { kept: ['as', 'it', 'is'] }])
    const [, status] = await followed.until('finished')
    assert.strictEqual(Object.keys(status).length, 14)
    assert.deepStrictEqual(status.timings, { 'render:setup': 1, 'render:download': 2 })
    assert.deepStrictEqual(await worker.pickup(), {})
})

test('news that come late do not wake a finished job', async () => {
    const [worker, followed, uid] = await begin('late')
    await worker.pickup()
    await worker.begin()
    await worker.tell({ state: 'finished', finishedAt: new Date() })
    await followed.until('finished')
    const late = await worker.tell({ state: 'render:dorender', renderProgress: 99 })
    assert.strictEqual(late.state, 'finished')
    assert.strictEqual((await worker.tell({ state: 'queued' })).state, 'finished')  // stopped while it had nothing to do
    assert.deepStrictEqual(await worker.pickup(), {})
    assert.strictEqual((await client().updateJob(uid, { state: 'queued' })).state, 'queued')
    assert.strictEqual((await worker.pickup()).uid, uid)
    await client().removeJob(uid)
})

test('a failure is told to the client', async () => {
    const [worker, followed] = await begin('failing')
    await worker.pickup()
    await worker.begin()
    const warned = await worker.tell({ error: 'aerender says no' })
    assert.deepStrictEqual([warned.state, warned.error], ['started', 'aerender says no'])
    await worker.tell({ state: 'error', errorAt: new Date(), error: ['it', 'broke'] })
    assert.strictEqual((await followed.until('error'))[1].error, 'it\n\nbroke')
})

test('a worker that is stopped gives its job back', async () => {
    const [worker, followed, uid] = await begin('stopped')
    await worker.pickup()
    await worker.begin()
    await followed.until('started')
    await worker.tell({ state: 'queued' })
    await followed.until('queued')
    const next = new Worker('next', 'stopped')
    assert.strictEqual((await next.pickup()).uid, uid)
    await next.begin()
    assert.strictEqual((await worker.tell({ state: 'finished' })).state, 'started')  // of a run that is over
    await next.tell({ state: 'finished', finishedAt: new Date() })
    assert.strictEqual((await followed.until('finished'))[1].jobExecutor, 'next')
})

test('a job that is gone is an error to its worker, who goes on', async () => {
    const [worker, followed, uid] = await begin('gone')
    await worker.pickup()
    await worker.begin()
    await remove(followed, uid)
    await assert.rejects(worker.tell({ state: 'render:dorender', renderProgress: 3 }), new RegExp(uid))
    assert.deepStrictEqual(await worker.pickup(), {})
})

test('thirty workers at once share twenty jobs', async () => {
    const added = await Promise.all(Array.from({ length: 20 }, () => add(project({ tags: 'many' }), client({ polling: 500 }))))
    const uids = added.map(([, { uid }]) => uid)
    const workers = Array.from({ length: 30 }, (_, n) => new Worker(`worker ${n}`, 'many'))
    const found = (await Promise.all(workers.map(each => each.pickup()))).map(job => job.uid)
    assert.strictEqual(found.filter(uid => uid === undefined).length, 10)
    assert.deepStrictEqual(found.filter(uid => uid !== undefined).sort(), [...uids].sort())
    await Promise.all(uids.map(uid => client().updateJob(uid, { state: 'finished' })))
    await Promise.all(added.map(([followed]) => followed.until('finished')))
})
