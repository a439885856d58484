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
    textContent = ''
    append(...nodes) { for (const each of nodes) this.insertBefore(each, null) }
    prepend(node) { this.insertBefore(node, this.children[0]) }
    replaceChildren(...nodes) { this.children = []; this.append(...nodes) }
    insertBefore(given, next) {
        const node = typeof given === 'string' ? Object.assign(new Element(), { textContent: given }) : given
        node.parent = this
        this.children.splice(next ? this.children.indexOf(next) : this.children.length, 0, node)
    }
    remove() { this.parent.children.splice(this.parent.children.indexOf(this), 1) }
    get firstChild() { return this.children[0] }
    querySelector(part) { return (this.parts ??= {})[part] ??= new Element() }
    setAttribute(name, value) { this.attributes[name] = value }
}

async function opened() {
    const page = { elements: {} }
    globalThis.setInterval = () => {}
    globalThis.window = new EventTarget()
    globalThis.location = { hash: '' }
    globalThis.document = {
        getElementById: (id) => page.elements[id] ??= new Element(),
        createElement: (name) => Object.assign(new Element(), { name })
    }
    globalThis.EventSource = class extends EventTarget { constructor() { super(); page.events = this } close() {} }
    await import(`${asModule(SOURCE)}#${Math.random()}`)
    page.hears = (status) => page.events.dispatchEvent(Object.assign(new Event('status'), { data: JSON.stringify(status) }))
    page.rows = (section) => page.elements[section].querySelector('.rows').children.map((each) => each.firstChild)
    return page
}

const STATUS = { uptimeMs: 5000, events: [], streams: [], pulls: [], recordings: [], pushes: [] }
const RECORDING = { id: '1', stream: 'live/cam', file: 'a b.mp4', state: 'recording', bytes: 1700000, durationMs: 9000, dropped: 0, leftOut: '', error: '' }

test('every file of a recording has its link, once it is there', async () => {
    const page = await opened()
    const links = () => page.rows('outputs')[0].children[2].children.filter((each) => each.href).map((each) => [each.href, each.textContent])
    page.hears({ ...STATUS, recordings: [{ ...RECORDING, files: [] }] })
    assert.deepStrictEqual(links(), [])
    page.hears({ ...STATUS, recordings: [{ ...RECORDING, files: ['a b.mp4', 'a b_2.mp4'] }] })
    assert.deepStrictEqual(links(), [['recordings/a%20b.mp4', 'a b.mp4'], ['recordings/a%20b_2.mp4', 'a b_2.mp4']])
})
