/* The player of the operator's page, under a clock of ours and a browser that does only what it is told. */

'use strict'

const { readFileSync } = require('node:fs')
const { join } = require('node:path')
const test = require('node:test')
const assert = require('node:assert')

const SOURCE = readFileSync(join(__dirname, '../../api/console/player.js'), 'utf8')

class Video extends EventTarget {
    buffered = { length: 1, start: () => 0, end: () => 1 }
    currentTime = 0
    async play() {}
    getVideoPlaybackQuality = () => ({ droppedVideoFrames: 0 })
}

async function opened({ hidden = false } = {}) {
    const found = { sockets: [], now: 0, notes: [], plays: () => true }
    globalThis.document = Object.assign(new EventTarget(), { hidden })
    globalThis.performance = { now: () => found.now }
    globalThis.setInterval = (watch) => { found.watch = watch }
    globalThis.setTimeout = (again) => { found.again = again; return 1 }
    globalThis.location = new URL('https://here/below/?a#b')
    Object.assign(URL, { createObjectURL: () => '', revokeObjectURL() {} })
    globalThis.WebSocket = class {
        constructor(address) { this.address = String(address); found.sockets.push(this) }
        close() {}
    }
    globalThis.MediaSource = class extends EventTarget {
        static isTypeSupported = (mime) => found.plays(mime)
        constructor() { super(); found.source = this }
        addSourceBuffer() { return Object.assign(new EventTarget(), { appendBuffer() { this.filled = true } }) }
    }
    const { Player } = await import(`data:text/javascript,${encodeURIComponent(SOURCE)}`)
    found.video = new Video()
    found.player = new Player(found.video, ({ text }) => found.notes.push(text))
    return found
}

// A first piece comes and is shown.
function begin(page, leftOut = '') {
    const socket = page.sockets.at(-1)
    socket.onmessage({ data: JSON.stringify({ mime: 'video/mp4', leftOut }) })
    page.source.dispatchEvent(new Event('sourceopen'))
    socket.onmessage({ data: new ArrayBuffer(8) })
    page.player.buffer.dispatchEvent(new Event('updateend'))
}

function pass(page, seconds, { data = false } = {}) {
    for (const until = page.now + seconds * 1000; page.now < until; page.now += 500) {
        if (data) page.sockets.at(-1).onmessage({ data: new ArrayBuffer(8) })
        page.watch()
    }
}

test('it asks below its page, and safely where that came safely', async () => {
    const page = await opened()
    page.player.play('live/a b')
    assert.equal(page.sockets.at(-1).address, 'wss://here/below/live/a%20b.ws')
    page.player.play('//elsewhere/cam')
    assert.ok(page.sockets.at(-1).address.startsWith('wss://here/below/'))
})

test('a page that was never looked at asks for nothing, and goes on once it was', async () => {
    const page = await opened({ hidden: true })
    page.player.play('live/cam')
    pass(page, 60)
    assert.strictEqual(page.sockets.length, 0)
    for (const hidden of [false, true, false]) {
        document.hidden = hidden
        document.dispatchEvent(new Event('visibilitychange'))
        assert.strictEqual(page.sockets.length, 1)
    }
    begin(page)
    document.hidden = true
    document.dispatchEvent(new Event('visibilitychange'))
    pass(page, 9)
    assert.strictEqual(page.sockets.length, 2)
})

test('a connection that is dead without a word is made anew, now and then', async () => {
    const page = await opened()
    page.player.play('live/cam')
    begin(page)
    pass(page, 60, { data: true })
    assert.strictEqual(page.sockets.length, 1)
    pass(page, 9)
    assert.strictEqual(page.sockets.length, 2)
    assert.ok(page.notes.includes('Nothing has come for some seconds'))
    pass(page, 60) // nor does the next one say anything
    assert.ok(page.sockets.length > 5 && page.sockets.length < 11, `${page.sockets.length}`)
    begin(page)
    assert.strictEqual(page.notes.at(-1), '')
    page.player.stop()
    const made = page.sockets.length
    pass(page, 60)
    assert.strictEqual(page.sockets.length, made)
})

test('the end of a stream is no stall, and another stream begins with a short delay', async () => {
    const page = await opened()
    page.player.play('live/cam')
    for (let n = 0; n < 5; n += 1) {
        begin(page)
        pass(page, 2, { data: true })
        page.sockets.at(-1).onclose({ code: 1000, reason: '' })
        page.video.dispatchEvent(new Event('waiting')) // what was buffered is over
        page.player.retry()
    }
    assert.strictEqual(page.player.stalls, 0)
    const { wanted } = page.player
    begin(page)
    pass(page, 2, { data: true })
    page.video.dispatchEvent(new Event('waiting')) // while it plays
    assert.strictEqual(page.player.stalls, 1)
    assert.ok(page.player.wanted > wanted)
    page.player.play('live/other')
    assert.strictEqual(page.player.wanted, wanted)
})

test('a stream that this browser does not play stays chosen, and is played when it comes in another way', async () => {
    const page = await opened()
    page.plays = () => false
    page.player.play('live/cam')
    for (let n = 0; n < 3; n += 1) {
        page.sockets.at(-1).onmessage({ data: JSON.stringify({ mime: 'video/mp4; codecs="hvc1"' }) })
        assert.strictEqual(page.player.name, 'live/cam')
        assert.strictEqual(page.notes.at(-1), 'This browser does not play video/mp4; codecs="hvc1"')
        page.again()
        assert.strictEqual(page.sockets.length, n + 2)
    }
    page.plays = () => true
    begin(page)
    assert.strictEqual(page.notes.at(-1), '')
})

test('what is left out of a stream is said while it plays', async () => {
    const page = await opened()
    page.player.play('live/cam')
    begin(page, 'video in av1')
    pass(page, 5, { data: true })
    assert.strictEqual(page.notes.at(-1), 'Without video in av1')
    pass(page, 5)
    assert.strictEqual(page.notes.at(-1), 'Nothing has come for some seconds')
    pass(page, 5, { data: true })
    assert.strictEqual(page.notes.at(-1), 'Without video in av1')
    page.sockets.at(-1).onmessage({ data: JSON.stringify({ leftOut: '' }) })
    assert.strictEqual(page.notes.at(-1), '')
    page.sockets.at(-1).onmessage({ data: JSON.stringify({ leftOut: 'audio in mp2' }) })
    assert.strictEqual(page.notes.at(-1), 'Without audio in mp2')
    page.player.play('live/other')
    begin(page)
    assert.strictEqual(page.notes.at(-1), '')
})

test('only a browser that plays no sound without a click turns it off', async () => {
    for (const [name, muted] of [['AbortError', false], ['NotAllowedError', true]]) { // of which the first says that another stream was chosen
        const page = await opened()
        page.video.muted = false
        page.video.play = async () => { throw new DOMException('', name) }
        page.player.play('live/cam')
        begin(page)
        await new Promise(setImmediate)
        assert.strictEqual(page.video.muted, muted)
    }
})

test('a pause is one until the stream is chosen again or the browser is told to play', async () => {
    const page = await opened()
    for (const goOn of [() => page.player.play('live/cam'), () => page.video.dispatchEvent(new Event('play'))]) {
        page.player.play('live/cam')
        begin(page)
        page.video.paused = true
        page.video.dispatchEvent(new Event('pause'))
        assert.strictEqual(page.notes.at(-1), 'Paused; choose the stream again to go on')
        const made = page.sockets.length
        page.player.retry()
        pass(page, 60)
        assert.strictEqual(page.sockets.length, made)
        assert.strictEqual(page.player.ahead, null)
        goOn()
        page.video.paused = false
        assert.strictEqual(page.sockets.length, made + 1)
        begin(page)
        page.video.dispatchEvent(new Event('play')) // by the player itself
        assert.strictEqual(page.sockets.length, made + 1)
        assert.strictEqual(page.notes.at(-1), '')
    }
})

test('a stream of which something cannot be played is opened anew, which is no pause', async () => {
    const page = await opened()
    page.player.play('live/cam')
    begin(page)
    page.player.buffer.appendBuffer = () => { throw new Error('the element has an error') }
    page.sockets[0].close = () => page.sockets[0].onclose?.({})
    page.video.error = { code: 3 }
    page.video.dispatchEvent(new Event('pause')) // as browsers do
    page.sockets[0].onmessage({ data: new ArrayBuffer(8) })
    assert.match(page.notes.at(-1), /waiting for it$/)
    page.again()
    assert.strictEqual(page.sockets.length, 2)
})

test('a jump leaves what stalls have shown to be needed, so that it does not bring the next one', async () => {
    const page = await opened()
    page.player.play('live/cam')
    begin(page)
    assert.ok(1 - page.video.currentTime < 0.1) // nothing is known yet
    const { wanted } = page.player
    for (let n = 0; n < 5; n += 1) {
        pass(page, 1, { data: true })
        page.video.dispatchEvent(new Event('waiting'))
    }
    const more = page.player.wanted - wanted
    assert.ok(more > 0.3)
    page.video.buffered = { length: 1, start: () => 0, end: () => 8 }
    page.player.buffer.dispatchEvent(new Event('updateend'))
    assert.ok(8 - page.video.currentTime > more)
    assert.ok(8 - page.video.currentTime < page.player.wanted)
})
