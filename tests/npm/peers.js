/* What the tests here have in common: clients of the server that the environment names, jobs, and who follows them. */

'use strict'

const { createClient } = require('@nexrender/api')

const host = process.env.MASHTUN_URL
const secret = process.env.MASHTUN_SECRET

const EVENTS = ['created', 'queued', 'picked', 'started', 'render:dorender', 'progress', 'finished', 'error']
const PATIENCE = 30000  // ms

/** A client; it asks for news of a job every 50 ms. */
const client = (more = {}) => createClient({ host, secret, polling: 50, ...more })

/** A job for After Effects: nobody here touches it. */
const project = (more = {}) => ({
    template: { src: 'file:///project.aepx', composition: 'main' },
    ...more,
})

/** A job that the server renders by itself: seconds of one colour. */
const film = (seconds, more = {}) => {
    const tree = { rootVideoNode: { node: 'SolidColorNode', id: 'back', red: 1 } }
    const src = 'data:application/json,' + encodeURIComponent(JSON.stringify(tree))
    const template = { src, composition: 'main', width: 64, height: 36, frameRate: 10, duration: seconds }
    return { template, ...more }
}

/** What nexrender's client tells of a job: `heard` is all of it so far, each [name, ...what came with it]. */
class Followed {
    constructor(emitter) {
        this.heard = []
        this.at = 0
        this.wake = () => {}
        for (const name of EVENTS) {
            emitter.on(name, (...values) => {
                this.heard.push([name, ...values])
                this.wake()
            })
        }
    }

    /** The next event of one of these names behind the last one that was waited for. Fails after a while. */
    async until(...names) {
        const end = Date.now() + PATIENCE
        for (;;) {
            const found = this.heard.findIndex(([name], n) => n >= this.at && names.includes(name))
            if (found >= 0) {
                this.at = found + 1
                return this.heard[found]
            }
            if (Date.now() > end) {
                throw new Error(`none of ${names} came, only ${this.heard.map(([name]) => name)}`)
            }
            await new Promise(resolve => {
                this.wake = resolve
                setTimeout(resolve, 1000)
            })
        }
    }
}

/** [Followed, job] of a new job. */
const add = async (body, by = client()) => {
    const followed = new Followed(await by.addJob(body))
    return [followed, (await followed.until('created'))[1]]
}

/** Removes a job: [answer, what its follower hears]. */
const remove = async (followed, uid) => {
    const answer = await client().removeJob(uid)
    return [answer, (await followed.until('error'))[1]]
}

/** A request of any kind: {status, bytes}. */
const ask = async (method, path) => {
    const answer = await fetch(`${host}/api/v1${path}`, { method, headers: { 'nexrender-secret': secret } })
    return { status: answer.status, bytes: Buffer.from(await answer.arrayBuffer()) }
}

module.exports = { Followed, add, ask, client, film, host, project, remove, secret }
