/* The operator's page under a browser that does only what it is told: what it shows of what the server says. */

'use strict'

const { readFileSync } = require('node:fs')
const { join } = require('node:path')
const test = require('node:test')
const assert = require('node:assert')

const source = (name) => readFileSync(join(__dirname, '../../api/console', name), 'utf8')
const asModule = (text) => `data:text/javascript,${encodeURIComponent(text)}`
const SOURCE = source('console.js').replace(/"[^"]*player\.js"/, `"${asModule(source('player.js'))}"`)

class Element extends EventTarget {
    children = []
    dataset = {}
    attributes = {}
    text = ''
    get textContent() { return this.text + this.children.map((each) => each.textContent).join('') }
    set textContent(text) { Object.assign(this, { text, children: [] }) }
    append(...nodes) { for (const each of nodes) this.insertBefore(each, null) }
    prepend(node) { this.insertBefore(node, this.children[0]) }
    replaceChildren(...nodes) { for (const each of [...this.children]) each.remove(); this.append(...nodes) }
    replaceWith(node) { this.parent.insertBefore(node, this); this.remove() }
    insertBefore(given, next) {
        const node = typeof given === 'string' ? Object.assign(new Element(), { textContent: given }) : given
        node.remove() // also where it only moves
        node.parent = this
        this.children.splice(next ? this.children.indexOf(next) : this.children.length, 0, node)
    }
    remove() {
        this.parent?.children.splice(this.parent.children.indexOf(this), 1)
        if (this.contains(document.activeElement)) document.activeElement = null
    }
    contains(node) { return node === this || this.children.some((each) => each.contains(node)) }
    focus() { document.activeElement = this }
    get firstChild() { return this.children[0] }
    get lastChild() { return this.children.at(-1) }
    querySelector(part) { return (this.parts ??= {})[part] ??= new Element() }
    setAttribute(name, value) { this.attributes[name] = value }
}

const within = (element) => element.children.flatMap((each) => [each, ...within(each)])

async function opened(hash = '', { hidden = false } = {}) {
    const page = { elements: {}, sockets: [], timers: {}, now: 0, asked: [], followed: [] }
    globalThis.performance = { now: () => page.now }
    globalThis.setInterval = (each, ms) => { page.timers[ms] = each }
    globalThis.setTimeout = () => 1
    globalThis.window = new EventTarget()
    globalThis.location = new URL(`http://here/${hash}`)
    globalThis.history = { replaceState() {} }
    globalThis.document = Object.assign(new EventTarget(), {
        hidden,
        getElementById: (id) => page.elements[id] ??= new Element(),
        createElement: (name) => Object.assign(new Element(), { name })
    })
    globalThis.EventSource = class extends EventTarget {
        static CLOSED = 2
        readyState = 0
        constructor() { super(); page.followed.push(this) }
        close() { this.readyState = 2 }
    }
    globalThis.WebSocket = class { constructor(address) { this.address = String(address); page.sockets.push(this) } close() {} }
    globalThis.fetch = async (address, { method, signal } = {}) => {
        page.asked.push(address)
        if (method) return page.does(method, signal)
        if (page.status) return { ok: false, status: page.status }
        if (!page.answer) throw new TypeError('nobody there')
        return { ok: true, json: async () => page.answer }
    }
    await import(`${asModule(SOURCE)}#${Math.random()}`)
    page.looks = (hidden) => {
        document.hidden = hidden
        document.dispatchEvent(new Event('visibilitychange'))
    }
    page.hears = (status) => page.followed.at(-1).dispatchEvent(Object.assign(new Event('status'), { data: JSON.stringify(status) }))
    page.news = () => page.elements.news.querySelector('.log').children.map((row) => row.children[1].textContent)
    page.watches = () => { page.now += 5000; return page.timers[2000]() }
    page.rows = (section) => page.elements[section].querySelector('.rows').children.map((each) => each.firstChild)
    page.links = (section) => within(page.elements[section].querySelector('.rows')).filter((each) => each.href)
    return page
}

const settled = () => new Promise(setImmediate) // what waits for nothing outside is done

const STATUS = { uptimeMs: 5000, events: [], streams: [], pulls: [], recordings: [], pushes: [] }
const RECORDING = { id: '1', stream: 'live/cam', file: 'a b.mp4', state: 'recording', bytes: 1700000, durationMs: 9000, dropped: 0, leftOut: '', error: '' }
const VIDEO = { codec: 'h264', width: 160, height: 90, frameRate: 10, bitRate: 93000 }
const CAM = { name: 'live/cam', publisher: 'rtmp', ageMs: 20, video: VIDEO, audio: null, readers: 1, dropped: 0 }

test('every file of a recording has its link, once it is there', async () => {
    const page = await opened()
    const links = () => page.links('outputs').map((each) => [each.href, each.textContent])
    page.hears({ ...STATUS, recordings: [{ ...RECORDING, files: [] }] })
    assert.deepStrictEqual(links(), [])
    page.hears({ ...STATUS, recordings: [{ ...RECORDING, files: ['a b.mp4', 'a b_2.mp4'] }] })
    assert.deepStrictEqual(links(), [['recordings/a%20b.mp4', 'a b.mp4'], ['recordings/a%20b_2.mp4', 'a b_2.mp4']])
})

test('the link of a recording stays the same one while the recording grows', async () => {
    const page = await opened()
    page.hears({ ...STATUS, recordings: [{ ...RECORDING, files: ['a b.mp4'] }] })
    const [link] = page.links('outputs')
    link.focus()
    page.hears({ ...STATUS, recordings: [{ ...RECORDING, files: ['a b.mp4', 'a b_2.mp4'], bytes: 1900000, durationMs: 10000 }] })
    assert.strictEqual(page.rows('outputs')[0].children[2].textContent, 'a b.mp4 · a b_2.mp4 · 00:10 · 1.9\u00a0MB')
    assert.strictEqual(page.links('outputs')[0], link)
    assert.strictEqual(document.activeElement, link)
    page.hears({ ...STATUS, recordings: [{ ...RECORDING, files: ['a b.mp4'] }] })
    assert.strictEqual(page.rows('outputs')[0].children[2].textContent, 'a b.mp4 · 00:09 · 1.7\u00a0MB')
    assert.strictEqual(document.activeElement, link)
})

test('while nothing answers, nothing is called live, and the page says why', async () => {
    const page = await opened('#live/cam')
    const status = { ...STATUS, streams: [CAM], recordings: [{ ...RECORDING, files: [] }] }
    const chips = () => ['streams', 'outputs'].map((each) => page.rows(each)[0].children[1]).map((each) => [each.textContent, each.dataset.state])
    const texts = () => ['note', 'link', 'uptime'].map((id) => page.elements[id].textContent)
    const live = [['live', 'good'], ['recording', 'good']]
    page.hears(status)
    assert.deepStrictEqual(chips(), live)
    assert.strictEqual(page.elements.record.disabled, false)

    page.sockets[0].onclose({ code: 1006, reason: '' })
    await page.watches()
    assert.deepStrictEqual(chips(), [['unknown', 'idle'], ['unknown', 'idle']])
    assert.deepStrictEqual(texts(), ['No connection to the server; trying again', 'no connection', ''])
    assert.strictEqual(page.elements.record.disabled, true)

    page.answer = status
    await page.watches()
    assert.deepStrictEqual(chips(), live)
    assert.deepStrictEqual(texts(), ['Opening…', 'polling', 'up 00:05'])
    assert.strictEqual(page.sockets.length, 2) // tried at once
})

test('focus stays in the list of streams when others come and go', async () => {
    const page = await opened()
    const hears = (...names) => page.hears({ ...STATUS, streams: names.map((name) => ({ ...CAM, name })) })
    hears('live/b', 'live/d')
    const [row] = page.rows('streams')
    row.focus()
    for (const names of [['live/a', 'live/b', 'live/d'], ['live/b', 'live/d'], ['live/b'], ['live/a', 'live/b', 'live/c'], ['live/b', 'live/c']]) {
        hears(...names)
        assert.deepStrictEqual(page.rows('streams').map((each) => each.children[0].textContent), names)
        assert.strictEqual(document.activeElement, row)
    }
})

test('a password that has changed is told from a server that is not there', async () => {
    const page = await opened()
    for (const [status, said] of [[401, 'password refused'], [503, 'no connection'], [undefined, 'no connection']]) {
        page.now += 9000
        page.status = status
        await page.watches()
        assert.strictEqual(page.elements.link.textContent, said)
    }
})

test('a page that nobody looks at has no connection for its news, and asks for nothing', async () => {
    const page = await opened('', { hidden: true })
    const open = () => page.followed.filter((each) => each.readyState !== EventSource.CLOSED).length
    const link = () => page.elements.link.textContent
    page.answer = STATUS
    await page.watches()
    assert.strictEqual(page.followed.length, 0) // never looked at
    for (let n = 1; n < 4; n += 1) {
        page.looks(false)
        await page.timers[2000]() // held back while it was hidden
        assert.deepStrictEqual([open(), page.followed.length, link()], [1, n, 'connecting'])
        page.hears(STATUS)
        assert.strictEqual(link(), 'connected')
        page.looks(true)
        for (let m = 0; m < 5; m += 1) await page.watches()
        assert.strictEqual(open(), 0)
    }
    assert.deepStrictEqual(page.asked, [])
})

test('a page that is hidden while it asks does not follow', async () => {
    const page = await opened()
    page.now += 9000
    page.answer = STATUS
    const watched = page.watches()
    page.looks(true)
    await watched
    assert.strictEqual(page.followed.length, 1)
    assert.strictEqual(page.followed[0].readyState, EventSource.CLOSED)
    page.looks(false)
    await page.watches() // where the event stream says nothing
    assert.strictEqual(page.elements.link.textContent, 'polling')
    page.now += 9000
    await page.watches()
    assert.strictEqual(page.followed.length, 3)
})

test('what grew while nobody looked is no fresh trouble, and what grows then is', async () => {
    const page = await opened()
    const chip = () => page.rows('events')[0].children[1].textContent
    const alarms = () => within(page.rows('streams')[0]).filter((each) => each.className === 'alarm').length
    const hears = (n) => {
        const mix = { stream: 'show', mixer: { lagged: n }, encoder: { skipped: 0, encodeMs: 1 } }
        const event = { name: 'show', state: 'on air', width: 64, height: 36, frameRate: 25, latencyMs: 1, error: '', subMixes: [mix] }
        page.hears({ ...STATUS, events: [event], streams: [{ ...CAM, dropped: n }] })
        return [chip(), alarms()]
    }
    assert.deepStrictEqual(hears(1), ['on air', 0])
    page.looks(true)
    page.looks(false)
    page.rows('streams')[0].dispatchEvent(new Event('click')) // shows the old status again
    assert.deepStrictEqual(hears(2), ['on air', 0])
    assert.deepStrictEqual(hears(3), ['on air, lagging', 1])
    assert.deepStrictEqual(hears(3), ['on air', 0])
})

test('a recording that does not begin is told, whoever refuses it, and the state is asked for', async () => {
    const page = await opened('#live/cam')
    page.hears({ ...STATUS, streams: [CAM] })
    const { record } = page.elements
    page.answer = { ...STATUS, streams: [CAM] }
    const refusals = [
        ['the disk is full', async () => Response.json({ error: 'the disk is full' }, { status: 503 })],
        ['HTTP 502', async () => new Response('<html>', { status: 502 })],
        ['HTTP 403', async () => Response.json(null, { status: 403 })],
        ['no answer', async () => { throw new TypeError('Failed to fetch') }]
    ]
    for (const [why, does] of refusals) {
        page.does = does
        record.dispatchEvent(new Event('click'))
        await settled()
        assert.strictEqual(page.news()[0], `recording live/cam ${why}`)
        assert.deepStrictEqual(page.asked.splice(0), ['streams/1.0/live/cam/recordings', 'status'])
        assert.strictEqual(record.disabled, false)
    }
})

test('a click on "Record" counts once, until it is answered or given up', async (t) => {
    const page = await opened('#live/cam')
    const limit = new AbortController()
    t.mock.method(AbortSignal, 'timeout', () => limit.signal)
    const { record } = page.elements
    page.hears({ ...STATUS, streams: [CAM] })
    page.does = (method, signal) => new Promise((_, reject) => { signal.onabort = () => reject(signal.reason) })
    record.dispatchEvent(new Event('click'))
    for (const name of ['live/cam', 'live/other']) {
        location.hash = name
        window.dispatchEvent(new Event('hashchange'))
        page.hears({ ...STATUS, streams: [CAM, { ...CAM, name: 'live/other' }] })
        assert.strictEqual(record.disabled, true)
    }
    limit.abort()
    await settled()
    assert.deepStrictEqual(page.news(), ['recording live/cam no answer'])
    page.hears({ ...STATUS, streams: [CAM, { ...CAM, name: 'live/other' }] })
    assert.strictEqual(record.disabled, false)
})

test('a name with a "%" is also understood as somebody types it into the address', async () => {
    const names = [
        ['live/50%', 'live/50%'], ['live/50%25', 'live/50%'], ['%E0%A4%A', '%E0%A4%A'], ['live/a%20b', 'live/a b'],
        ['live/ü 50%', 'live/ü 50%'] // of which a browser escapes some
    ]
    for (const [written, name] of names) {
        const page = await opened(`#${written}`)
        page.hears(STATUS)
        assert.strictEqual(page.elements.playing.textContent, name)
        location.hash = 'live/other'
        window.dispatchEvent(new Event('hashchange'))
        location.hash = written
        window.dispatchEvent(new Event('hashchange'))
        assert.strictEqual(page.elements.playing.textContent, name)
        assert.strictEqual(page.sockets.length, 3)
    }
})

test('a name that turns the direction of what follows is shown with a mark for that, wherever it stands', async () => {
    const name = 'live/\u202Elive\u2069'
    const page = await opened(`#${encodeURIComponent(name)}`)
    page.hears({
        ...STATUS,
        streams: [{ ...CAM, name }],
        pulls: [{ name, state: 'retrying', error: `source "${name}": gone` }],
        recordings: [{ ...RECORDING, stream: name, files: ['\u2066.mp4'] }],
        pushes: [{ id: '1', stream: name, url: 'rtmp://there/', state: 'pushing', bytes: 0, dropped: 0, error: '' }]
    })
    page.followed.at(-1).dispatchEvent(Object.assign(new Event('stream'), {
        data: JSON.stringify({ subject: 'stream', stream: name, state: 'failed', error: 'no \u202D' })
    }))
    const shown = 'live/[U+202E]live[U+2069]'
    const [stream] = page.rows('streams')
    const [push, recording] = [...page.rows('outputs')].reverse()
    assert.strictEqual(page.elements.playing.textContent, shown)
    assert.strictEqual(stream.children[0].textContent, shown)
    assert.ok(stream.children[2].textContent.endsWith(` · source "${shown}": gone`))
    assert.strictEqual(push.children[0].textContent, `${shown} → rtmp://there/`)
    assert.ok(recording.children[2].textContent.startsWith('[U+2066].mp4 · 00:09 · '))
    assert.strictEqual(page.links('outputs')[0].href, 'recordings/%E2%81%A6.mp4')
    assert.deepStrictEqual(page.news(), [`stream ${shown} failed: no [U+202D]`])
    assert.strictEqual(page.sockets.length, 1)
    stream.dispatchEvent(new Event('click')) // it is played under its own name
    assert.ok(page.sockets.at(-1).address.endsWith('/live/%E2%80%AElive%E2%81%A9.ws'))
})
