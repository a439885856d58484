// The operator's page: what streams and events there are and how they are, and one of them on screen.
// All addresses are relative: a proxy may have the server below a path of its own.

import { Player } from "./player.js";

const STATUS_EVERY = 1000; // ms
const DEAD = 8000; // ms until an event stream that says nothing is opened again
const LATE = 1000, STALLED = 3000; // ms since the last picture
const ANSWER = 5000; // ms that a recording's begin or end may take; a slow disk has some 3 s to end one
const NEWS = 50; // lines that are kept
const $ = (id) => document.getElementById(id);

let status = null; // the last one
let before = null; // the one before it, unless nobody looked since: what grows is shown as trouble
let left = null; // the last one when the page was hidden or seen again
let known = true; // false while nothing answers: what is shown is how it was
let asking = false; // a recording to begin or end
let report = { state: "idle", text: "" }; // the player's last one
const player = new Player($("video"), showPlayer);

// --- words ----------------------------------------------------------------------------------------------------------

const number = (value, digits = 0) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const address = (name) => name.split("/").map(encodeURIComponent).join("/");
const plural = (n, one, many = `${one}s`) => `${number(n)}\u00a0${n === 1 ? one : many}`;

// Numbers and units stay on one line: U+00A0 between them.
const bitRate = (bits) => (bits >= 1e6 ? `${number(bits / 1e6, 1)}\u00a0Mbit/s` : `${number(bits / 1e3)}\u00a0kbit/s`);

function size(bytes) {
  if (bytes >= 1e9) return `${number(bytes / 1e9, 2)}\u00a0GB`;
  return bytes >= 1e6 ? `${number(bytes / 1e6, 1)}\u00a0MB` : `${number(bytes / 1e3)}\u00a0kB`;
}

function duration(ms) {
  const s = Math.floor(ms / 1000);
  const parts = [Math.floor(s / 3600), Math.floor(s / 60) % 60, s % 60].map((each) => String(each).padStart(2, "0"));
  return (parts[0] === "00" ? parts.slice(1) : parts).join(":");
}

// --- elements: all text comes into the page through element() and setText() ------------------------------------------

// A text in which what turns the direction of all that follows is a mark: anybody may publish under any name.
const legible = (text) => text.replace(/[\u202A-\u202E\u2066-\u2069]/g, (each) => `[U+${each.charCodeAt(0).toString(16).toUpperCase()}]`);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.map((each) => (typeof each === "string" ? legible(each) : each)));
  return made;
}

// Shows items in a list, each in the row that it had before, so that focus and selection stay.
function showRows(section, items, fill) {
  const list = $(section).querySelector(".rows");
  const keys = new Set(items.map((each) => each.key));
  for (const each of [...list.children]) if (!keys.has(each.dataset.key)) each.remove(); // first, so that the others stay in place
  const rows = new Map([...list.children].map((each) => [each.dataset.key, each]));
  items.forEach((item, n) => {
    let row = rows.get(item.key);
    if (!row) {
      row = element("li", {}, element(item.play ? "button" : "div", { className: "row" },
        element("span", { className: "name" }), element("span", { className: "chip" }), element("span", { className: "detail" })));
      row.dataset.key = item.key;
      if (item.play) {
        row.firstChild.type = "button";
        row.firstChild.addEventListener("click", () => choose(row.dataset.play));
      }
    }
    if (list.children[n] !== row) list.insertBefore(row, list.children[n] ?? null);
    if (item.play) {
      row.dataset.play = item.play;
      row.firstChild.setAttribute("aria-pressed", String(item.pressed));
    }
    const [name, chip, detail] = row.firstChild.children;
    setText(name, item.name);
    const [state, word] = known ? item.state : ["idle", "unknown"];
    setText(chip, word);
    chip.dataset.state = state;
    fill(detail, item.detail.filter(Boolean));
  });
}

function setText(node, text) {
  const shown = legible(text);
  if (node.textContent !== shown) node.textContent = shown;
}

// Parts are texts, or {alarm}, or {link, text}; with a dot between them. What has not changed stays, with focus and clicks.
function fillDetail(node, parts) {
  parts.forEach((part, n) => {
    const wanted = JSON.stringify(part);
    const old = node.children[n];
    if (old?.dataset.shown === wanted) return;
    const made = element("span", {}, n ? " · " : "", typeof part === "string" ? part
      : part.alarm ? element("span", { className: "alarm" }, part.alarm)
      : element("a", { href: part.link }, part.text));
    made.dataset.shown = wanted;
    if (old) old.replaceWith(made);
    else node.append(made);
  });
  while (node.children.length > parts.length) node.lastChild.remove();
}

// --- streams, events, outputs ---------------------------------------------------------------------------------------

// Of pulls, recordings and pushes; others are neither good nor bad.
const STATES = { publishing: "good", recording: "good", pushing: "good", connecting: "warn", retrying: "warn", failed: "bad" };

function streamState(stream, pull) {
  if (!stream || stream.publisher === null) return pull ? [STATES[pull.state] ?? "idle", pull.state] : ["idle", "waiting"];
  if (stream.ageMs === null) return ["warn", "no data yet"];
  if (stream.ageMs > STALLED) return ["bad", `stalled ${number(stream.ageMs / 1000)} s`];
  return stream.ageMs > LATE ? ["warn", "late"] : ["good", "live"];
}

function streamFormat({ video, audio }) {
  return [
    video && video.width > 0 && `${video.width}×${video.height}`,
    video && `${number(video.frameRate)}\u00a0fps`,
    (video || audio) && bitRate((video?.bitRate ?? 0) + (audio?.bitRate ?? 0)),
    !video && audio && "sound only",
  ];
}

// A counter of what went wrong: an alarm while it grows.
function counted(now, word, old = now) {
  const text = `${number(now)}\u00a0${word}`;
  return now > old ? { alarm: text } : text;
}

function streamItem(name) {
  const stream = status.streams.find((each) => each.name === name);
  const pull = status.pulls.find((each) => each.name === name);
  return {
    key: name, name, play: name, pressed: player.name === name, state: streamState(stream, pull),
    detail: [
      stream?.publisher ?? (pull ? "pull" : "nobody publishes"),
      ...(stream?.publisher ? streamFormat(stream) : []),
      stream && plural(stream.readers, "reader"),
      stream?.dropped > 0 && counted(stream.dropped, "dropped", before?.streams.find((each) => each.name === name)?.dropped),
      pull?.error && { alarm: pull.error },
    ],
  };
}

function eventItem(event) {
  const sum = (counters, of) => counters?.subMixes.reduce((total, mix) => total + of(mix), 0) ?? 0;
  const lagged = (each) => sum(each, (mix) => mix.mixer.lagged);
  const skipped = (each) => sum(each, (mix) => mix.encoder.skipped);
  const old = before?.events.find((each) => each.name === event.name);
  const behind = old && (lagged(event) > lagged(old) || skipped(event) > skipped(old));
  const stream = event.subMixes[0].stream;
  return {
    key: event.name, name: event.name, play: stream, pressed: false,
    state: event.state !== "on air" ? ["bad", event.state] : behind ? ["warn", "on air, lagging"] : ["good", event.state],
    detail: [
      stream,
      event.subMixes.length > 1 && plural(event.subMixes.length, "sub-mix", "sub-mixes"),
      `${event.width}×${event.height}`,
      `${number(event.frameRate, event.frameRate % 1 ? 2 : 0)}\u00a0fps`,
      `latency ${event.latencyMs}\u00a0ms`,
      `encoding ${number(Math.max(...event.subMixes.map((mix) => mix.encoder.encodeMs)), 1)}\u00a0ms`,
      counted(lagged(event), "lagged", old && lagged(old)),
      counted(skipped(event), "skipped", old && skipped(old)),
      event.error && { alarm: event.error },
    ],
  };
}

function recordingItem(each) {
  return {
    key: `recording ${each.id}`, name: each.stream, state: [STATES[each.state] ?? "idle", each.state],
    detail: [
      ...each.files.map((file) => ({ link: `recordings/${encodeURIComponent(file)}`, text: file })),
      duration(each.durationMs), size(each.bytes), each.leftOut && { alarm: `without ${each.leftOut}` },
      each.error && { alarm: each.error },
    ],
  };
}

function pushItem(each) {
  return {
    key: `push ${each.id}`, name: `${each.stream} → ${each.url}`, state: [STATES[each.state] ?? "idle", each.state],
    detail: [size(each.bytes), each.dropped > 0 && counted(each.dropped, "dropped", before?.pushes.find((old) => old.id === each.id)?.dropped), each.error && { alarm: each.error }],
  };
}

function show(fresh, answered = true) {
  const returned = answered && !known;
  const last = status;
  before = last === left ? null : last;
  status = fresh;
  known = answered;
  const names = new Set([...status.streams, ...status.pulls].map((each) => each.name));
  showRows("streams", [...names].sort().map(streamItem), fillDetail);
  showRows("events", status.events.map(eventItem), fillDetail);
  showRows("outputs", [...status.recordings.map(recordingItem).reverse(), ...status.pushes.map(pushItem)], fillDetail);
  setText($("uptime"), known ? `up ${duration(status.uptimeMs)}` : "");
  showChosen();
  showPlayer(report);
  const chosen = status.streams.find((each) => each.name === player.name);
  if (player.name === null && status.events.length === 1) choose(status.events[0].subMixes[0].stream); // nothing to choose
  const old = last?.streams.find((each) => each.name === player.name);
  if (chosen?.publisher && (returned || old?.publisher == null)) player.retry();
}

// --- what is played -------------------------------------------------------------------------------------------------

function choose(name) {
  player.play(name);
  history.replaceState(null, "", `#${address(name)}`);
  if (status) show(status, known);
}

// Chooses the stream that the page's address names.
function chooseAddressed() {
  const name = decoded(location.hash.slice(1));
  if (name) choose(name);
}

// What is no escape stays as it is written, also beside those of the browser: somebody wrote a bare "%".
function decoded(text) {
  return text.replace(/(%[0-9a-f]{2})+/gi, (run) => {
    try {
      return decodeURIComponent(run);
    } catch {
      return run;
    }
  });
}

function showPlayer(fresh) {
  report = fresh;
  const { state, text } = report;
  const lost = !known && (state === "opening" || state === "away");
  setText($("note"), lost ? "No connection to the server; trying again" : text || (state === "idle" ? "Choose a stream to watch it" : ""));
}

function running() {
  return known && status?.recordings.find((each) => each.stream === player.name && each.state === "recording");
}

function showChosen() {
  const stream = known && status?.streams.find((each) => each.name === player.name);
  setText($("playing"), player.name ?? "No stream");
  const codecs = [stream?.video?.codec, stream?.audio?.codec].filter(Boolean).map((codec) => codec.toUpperCase());
  setText($("format"), stream ? [...streamFormat(stream), ...codecs].filter(Boolean).join(" · ") : "");
  for (const id of ["mute", "enlarge"]) $(id).disabled = player.name === null;
  $("record").disabled = asking || (!stream?.publisher && !running());
  $("record").dataset.on = String(Boolean(running()));
  setText($("record"), running() ? "Stop recording" : "Record");
}

function showFigures(received) {
  const ahead = player.ahead;
  setText($("behind"), ahead === null ? "–" : `${number(ahead * 1000)} ms`);
  setText($("wanted"), ahead === null ? "–" : `${number(player.wanted * 1000)} ms`);
  setText($("received"), ahead === null ? "–" : bitRate(received * 8));
  setText($("lost"), ahead === null ? "–" : number(player.lost));
  setText($("stalls"), ahead === null ? "–" : number(player.stalls));
}

function showSound() {
  setText($("mute"), $("video").muted ? "Unmute" : "Mute");
}

async function toggleRecording() {
  const { name } = player;
  const recording = running();
  const path = `streams/1.0/${address(name)}/recordings`;
  asking = true;
  showChosen();
  const why = await refused(recording ? `${path}/${recording.id}` : path, recording ? "DELETE" : "POST");
  asking = false;
  if (why) tell("recording", name, why);
  await poll();
}

// Asks for something to be done: why it is not, or null.
async function refused(path, method) {
  try {
    const answer = await fetch(path, { method, signal: AbortSignal.timeout(ANSWER) });
    if (answer.ok) return null;
    const said = await answer.json().catch(() => null); // a proxy's answer is a page
    return said?.error ?? `HTTP ${answer.status}`;
  } catch {
    return "no answer";
  }
}

// --- news -----------------------------------------------------------------------------------------------------------

function tell(subject, id, state) {
  const log = $("news").querySelector(".log");
  const time = new Date().toLocaleTimeString("en-GB");
  log.prepend(element("li", {}, element("time", {}, time), element("span", {}, `${subject} `, element("b", {}, id), ` ${state}`)));
  while (log.children.length > NEWS) log.lastChild.remove();
}

function showLink(state, text) {
  $("link").dataset.state = state;
  setText($("link"), text);
}

let source = null;
let heard = -Infinity;
let followed = -Infinity; // when the event stream was opened

// A page that nobody looks at follows nothing: browsers have six connections to a server, for all tabs together.
function follow() {
  source?.close();
  source = null;
  if (document.hidden) {
    showLink("idle", "connecting");
    return;
  }
  followed = performance.now();
  source = new EventSource(`events?status=${STATUS_EVERY}`);
  source.addEventListener("status", (message) => {
    heard = performance.now();
    showLink("good", "connected");
    show(JSON.parse(message.data));
  });
  for (const subject of ["stream", "event", "pull", "recording", "push"]) {
    source.addEventListener(subject, (message) => {
      const news = JSON.parse(message.data);
      tell(news.subject, news.stream || news.id, [news.state, news.error].filter(Boolean).join(": "));
    });
  }
}

let isLockedOut = false; // the password has changed

async function poll() {
  isLockedOut = false;
  try {
    const answer = await fetch("status", { signal: AbortSignal.timeout(2000) });
    isLockedOut = answer.status === 401;
    if (!answer.ok) throw new Error(answer.statusText);
    show(await answer.json());
    return true;
  } catch {
    return false;
  }
}

// Where the event stream says nothing, the state is asked for; and now and then the stream is opened again: its connection
// may be dead, and nobody says so.
async function watch() {
  const now = performance.now();
  if (document.hidden || now - heard < 3 * STATUS_EVERY) return;
  const answered = await poll();
  if (answered) showLink("warn", "polling");
  else {
    showLink("bad", isLockedOut ? "password refused" : "no connection");
    if (status) show(status, false);
  }
  if (source?.readyState === EventSource.CLOSED || (answered && now - followed > DEAD)) follow();
}

// --- begin ----------------------------------------------------------------------------------------------------------

$("mute").addEventListener("click", () => { $("video").muted = !$("video").muted; });
$("video").addEventListener("volumechange", showSound);
$("record").addEventListener("click", toggleRecording);
$("enlarge").addEventListener("click", () => $("video").requestFullscreen?.());
document.addEventListener("visibilitychange", () => {
  heard = performance.now(); // what was not asked for is not late
  left = status;
  follow();
});
window.addEventListener("hashchange", chooseAddressed);

let shown = 0; // bytes
setInterval(() => {
  showFigures(player.bytes - shown);
  shown = player.bytes;
}, 1000);
setInterval(watch, 2 * STATUS_EVERY);
follow();
chooseAddressed();
