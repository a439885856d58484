// Plays one stream: fragmented MP4 from a WebSocket through MediaSource, a fraction of a second behind live.
//
// Theory of operation
// * `ahead` is what is buffered beyond the playhead: so far is the picture on screen behind the newest one here.
// * It is brought back to `wanted` by playing a little faster; from far away, by a jump. `wanted` grows at every stall
//   and shrinks in quiet times: a good network gives a short delay, a bad one a picture without stops.
// * When the connection ends, or brings what this browser does not play, the last picture stays, and it is tried again, at
//   longer and longer intervals: the stream may return, or come in another way.
// * A pause (a media key, the controls of the full screen) ends the connection: what goes on afterwards is live again.
// * A page that was never looked at opens no MediaSource: nothing is asked for until then, or all of it would wait there.

const WANTED_LEAST = 0.16; // s; with 0.1 or less, browsers run dry now and then
const WANTED_MOST = 1.0;
const WANTED_MORE = 0.08; // after a stall
const CALM = 8000; // ms without a stall, after which less is enough
const TOLERANCE = 0.1; // s beyond `wanted` where catching up begins: a change of rate costs browsers some 40 ms itself
const FASTER = 1.1;
const JUMP = 0.3; // s beyond `wanted` where catching up would take too long …
const JUMP_REST = 2000; // … ms after the last jump, which costs a busy machine a moment too
const EDGE = 0.04; // s behind the end where the first jump goes: until the browser plays from there, more has come
const KEEP = 6; // s of what was played that stay in the buffer
const UNPLAYABLE = 1003; // why a socket is closed
const RETRY_FIRST = 500, RETRY_LAST = 8000; // ms
const SILENCE = 4000; // ms without data that are worth a word
const DEAD = 2 * SILENCE; // … after which the connection may be dead without a word: another one is tried

export class Player {
  // report({state, text}): "idle", "opening", "playing", "paused", "away"; the text says why.
  constructor(video, report) {
    this.video = video;
    this.report = report;
    this.name = null;
    this.wanted = WANTED_LEAST;
    this.stalls = 0;
    this.lost = 0; // pictures that came and were not shown, but for those that a jump left out
    this.dropped = 0; // as the browser counts them
    this.bytes = 0;
    this.calmSince = performance.now();
    this.seen = !document.hidden;
    document.addEventListener("visibilitychange", () => this.#look());
    video.addEventListener("waiting", () => this.#stalled());
    video.addEventListener("pause", () => this.#pause());
    video.addEventListener("play", () => this.paused && this.#connect());
    setInterval(() => this.#watch(), 500);
  }

  play(name) {
    this.stop();
    this.name = name;
    this.delay = RETRY_FIRST;
    this.wanted = WANTED_LEAST;
    this.stalls = this.lost = 0;
    this.#connect();
  }

  stop() {
    this.name = null;
    this.#disconnect();
    this.report({ state: "idle", text: "" });
  }

  // Tries at once, if it is waiting to try again.
  retry() {
    if (this.name !== null && this.timer) this.#connect();
  }

  // Seconds behind the newest picture that has come, or null.
  get ahead() {
    const ranges = this.video.buffered;
    return this.buffer && ranges.length ? Math.max(0, ranges.end(ranges.length - 1) - this.video.currentTime) : null;
  }

  #look() {
    if (this.seen || document.hidden) return;
    this.seen = true;
    if (this.name !== null) this.#connect();
  }

  #connect() {
    this.#disconnect();
    this.report({ state: "opening", text: "Opening…" });
    if (!this.seen) return;
    const path = this.name.split("/").map(encodeURIComponent).join("/");
    const address = new URL(`./${path}.ws`, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (message) => this.#receive(message.data);
    socket.onclose = ({ code, reason }) => this.#closed(socket, code === UNPLAYABLE ? reason : "");
    this.socket = socket;
    this.queue = [];
    this.heard = performance.now();
  }

  #disconnect() {
    clearTimeout(this.timer);
    this.timer = null;
    const socket = this.socket;
    this.socket = null; // its last callbacks mean nothing any more
    if (socket) {
      socket.onmessage = socket.onclose = null;
      socket.close();
    }
    this.buffer = null;
    this.started = false; // a picture that has come to its end is no stall
    this.paused = false;
  }

  #pause() {
    if (!this.started || this.video.error) return; // nothing comes, or something else, or what cannot be played
    this.#disconnect();
    this.paused = true;
    this.report({ state: "paused", text: "Paused; choose the stream again to go on" });
  }

  #closed(socket, reason) {
    if (socket !== this.socket) return;
    const why = reason || (this.started ? "The stream has ended" : "Nobody publishes this stream");
    this.#wait(`${why}; waiting for it`);
  }

  #wait(text) {
    this.#disconnect();
    this.timer = setTimeout(() => this.#connect(), this.delay);
    this.delay = Math.min(RETRY_LAST, this.delay * 2);
    this.report({ state: "away", text });
  }

  #receive(data) {
    this.heard = performance.now();
    if (typeof data === "string") {
      this.#expect(JSON.parse(data));
    } else {
      this.bytes += data.byteLength;
      this.queue.push(data);
      this.#pump();
    }
  }

  // What comes next is of that type, if one is told: a buffer can take another codec, but not another number of tracks.
  #expect({ mime, leftOut }) {
    this.leftOut = leftOut;
    if (mime === undefined) {
      if (this.started) this.#reportPlaying(this.silent);
      return;
    }
    const tracks = mime.split(",").length;
    if (!MediaSource.isTypeSupported(mime)) {
      this.#wait(`This browser does not play ${mime}`);
    } else if (this.buffer === null || tracks !== this.tracks) {
      this.tracks = tracks;
      this.queue = [];
      this.started = false;
      this.#open(mime);
    } else {
      this.queue.push(mime);
    }
  }

  #open(mime) {
    const source = new MediaSource();
    this.buffer = undefined; // being opened
    source.addEventListener("sourceopen", () => {
      URL.revokeObjectURL(this.video.src);
      if (this.source !== source || this.socket === null) return;
      this.buffer = source.addSourceBuffer(mime);
      this.buffer.addEventListener("updateend", () => source === this.source && this.#appended());
      this.buffer.addEventListener("error", () => source === this.source && this.socket?.close());
      this.#pump();
    }, { once: true });
    this.source = source;
    this.video.src = URL.createObjectURL(source);
  }

  // Gives the buffer what waits: all pieces up to the next change of tracks in one go.
  #pump() {
    if (!this.buffer || this.buffer.updating || this.queue.length === 0) return;
    if (typeof this.queue[0] === "string") this.buffer.changeType(this.queue.shift());
    const change = this.queue.findIndex((each) => typeof each === "string");
    const pieces = this.queue.splice(0, change < 0 ? this.queue.length : change);
    if (pieces.length === 0) return;
    try {
      this.buffer.appendBuffer(pieces.length === 1 ? pieces[0] : joined(pieces));
    } catch {
      this.socket?.close(); // the element has an error, or no room: begin anew
    }
  }

  #appended() {
    if (!this.buffer) return;
    const ranges = this.video.buffered;
    if (ranges.length) this.#follow(ranges.start(ranges.length - 1), ranges.end(ranges.length - 1));
    const done = this.video.currentTime - KEEP;
    if (ranges.length && ranges.start(0) < done - KEEP && !this.buffer.updating) this.buffer.remove(0, done);
    this.#pump();
  }

  // Keeps the playhead `wanted` behind the end of the newest range.
  #follow(start, end) {
    const { video, wanted } = this;
    const ahead = end - video.currentTime;
    const now = performance.now();
    const far = ahead > wanted + JUMP && now - this.jumped > JUMP_REST;
    const hole = video.currentTime < start - EDGE; // pictures are missing in between
    if (!this.started || hole || far) {
      this.calmSince = this.jumped = now;
      // As far behind as stalls have shown to be needed: at the edge, 10 pictures a second without sound stall at every jump.
      video.currentTime = Math.max(start, end - EDGE - (wanted - WANTED_LEAST));
      video.playbackRate = 1;
    } else if (ahead > wanted + TOLERANCE) {
      video.playbackRate = FASTER;
    } else if (ahead < wanted) {
      video.playbackRate = 1;
    }
    if (this.started) return;
    this.started = true;
    this.delay = RETRY_FIRST;
    video.play().catch(({ name }) => {
      if (name !== "NotAllowedError") return; // another stream was chosen meanwhile
      video.muted = true; // sound needs a click first
      video.play().catch(() => {});
    });
    this.#reportPlaying(false);
  }

  #reportPlaying(silent) {
    this.silent = silent;
    const without = this.leftOut ? `Without ${this.leftOut}` : "";
    this.report({ state: "playing", text: silent ? "Nothing has come for some seconds" : without });
  }

  #stalled() {
    const now = performance.now();
    if (!this.started || this.video.seeking || now - this.calmSince < 600) return; // a start or a jump is no stall
    this.stalls += 1;
    this.calmSince = now;
    this.wanted = Math.min(WANTED_MOST, this.wanted + WANTED_MORE);
  }

  #watch() {
    const now = performance.now();
    if (this.socket !== null && now - this.heard > DEAD) this.#connect();
    if (!this.started) return;
    const { droppedVideoFrames } = this.video.getVideoPlaybackQuality();
    if (now - this.jumped > 1000) this.lost += Math.max(0, droppedVideoFrames - this.dropped);
    this.dropped = droppedVideoFrames;
    if (now - this.calmSince > CALM && this.wanted > WANTED_LEAST) {
      this.wanted = Math.max(WANTED_LEAST, this.wanted - 0.02);
      this.calmSince = now;
    }
    const silent = now - this.heard > SILENCE;
    if (silent !== this.silent) this.#reportPlaying(silent);
  }
}

function joined(pieces) {
  const whole = new Uint8Array(pieces.reduce((sum, each) => sum + each.byteLength, 0));
  let at = 0;
  for (const each of pieces) {
    whole.set(new Uint8Array(each), at);
    at += each.byteLength;
  }
  return whole;
}
