// Plays a piece by the audio clock: notes are handed to it a moment ahead, so that a busy page does not make them late.
const AHEAD_SECONDS = 0.2;
const AHEAD_HIDDEN_SECONDS = 2.5; // browsers wake a hidden page once a second
const TICK_MILLISECONDS = 30;

class Player {
  constructor(piece) {
    this.tracks = piece.tracks.map((track) => ({ family: track.family, notes: notesOf(track), muted: false, solo: false, next: 0 }));
    this.end = piece.end / 1000;
    this.rate = 1; // of the written tempo
    this.volume = 0.8;
    this.playing = false;
    this.turn = 0; // counts plays and pauses
    this.voices = new Set();
    this.anchor = { song: 0, clock: 0 };
    this.context = null;
    this.onended = () => {};
  }

  // Where the music is, in seconds at the written tempo.
  get position() {
    if (!this.playing) return this.anchor.song;
    return Math.min(this.end, this.anchor.song + Math.max(0, this.now() - this.anchor.clock) * this.rate);
  }

  now() { return this.context ? this.context.currentTime : performance.now() / 1000; }

  audible(track) { return this.tracks.some((other) => other.solo) ? track.solo : !track.muted; }

  // Opens the sound on the first use, since browsers allow it only after a click or a key.
  open() {
    if (this.context || !window.AudioContext) return;
    this.context = new AudioContext({ latencyHint: "interactive" });
    const limiter = new DynamicsCompressorNode(this.context, { threshold: -14, ratio: 8, attack: 0.004, release: 0.2 });
    this.master = new GainNode(this.context, { gain: this.volume });
    const level = new GainNode(this.context, { gain: 0.6 }); // the limiter makes up for what it takes
    this.master.connect(limiter).connect(level).connect(this.context.destination);
    for (const track of this.tracks) {
      track.output = new GainNode(this.context, { gain: this.audible(track) ? 1 : 0 });
      track.output.connect(this.master);
    }
  }

  async play() {
    if (this.playing) return;
    this.open();
    if (this.anchor.song >= this.end) this.anchor.song = 0;
    this.playing = true;
    this.anchor.clock = Infinity; // time stands still until the sound is there
    this.turn += 1;
    const { turn } = this;
    if (this.context) await this.context.resume();
    if (turn !== this.turn) return; // paused meanwhile
    this.restart(this.anchor.song);
    this.timer = setInterval(() => this.schedule(), TICK_MILLISECONDS);
  }

  pause() {
    const place = this.position;
    this.playing = false;
    this.turn += 1;
    clearInterval(this.timer);
    this.silence();
    this.anchor.song = place;
  }

  stop() { this.pause(); this.anchor.song = 0; }

  seek(song) {
    const place = Math.max(0, Math.min(this.end, song));
    if (this.playing) { this.silence(); this.restart(place); } else this.anchor.song = place;
  }

  setRate(rate) {
    const place = this.position;
    this.rate = rate;
    this.anchor = { song: place, clock: this.now() }; // notes that sound already keep their length
  }

  setVolume(volume) {
    this.volume = volume;
    if (this.context) this.master.gain.setTargetAtTime(volume, this.context.currentTime, 0.02);
  }

  // Tells the sound of every track whether it is heard.
  mix() {
    if (!this.context) return;
    for (const track of this.tracks) track.output.gain.setTargetAtTime(this.audible(track) ? 1 : 0, this.context.currentTime, 0.01);
  }

  // Begins at a place; notes that sound there already are taken up.
  restart(song) {
    this.anchor = { song, clock: this.now() + (this.context ? 0.06 : 0) };
    for (const track of this.tracks) {
      track.next = firstFrom(track.notes, song - 0.001);
      if (!this.context || track.family === "drums") continue;
      for (let i = 0; i < track.next; i += 1) {
        const note = track.notes[i];
        if (note.end > song + 0.05) this.sound(track, note, this.anchor.clock, (note.end - song) / this.rate);
      }
    }
    this.schedule();
  }

  schedule() {
    const now = this.now();
    if (this.position >= this.end) { this.finish(); return; }
    if (!this.context) return;
    const ahead = document.hidden ? AHEAD_HIDDEN_SECONDS : AHEAD_SECONDS;
    const until = this.anchor.song + (now + ahead - this.anchor.clock) * this.rate;
    for (const track of this.tracks) {
      for (; track.next < track.notes.length && track.notes[track.next].start < until; track.next += 1) {
        const note = track.notes[track.next];
        const time = this.anchor.clock + (note.start - this.anchor.song) / this.rate;
        this.sound(track, note, Math.max(time, now), (note.end - note.start) / this.rate);
      }
    }
    for (const voice of this.voices) if (voice.last < now) this.voices.delete(voice);
  }

  sound(track, note, time, duration) {
    const voice = track.family === "drums"
      ? startDrum(this.context, track.output, note, time)
      : startNote(this.context, track.output, track.family, note, time, duration);
    this.voices.add(voice);
  }

  // Ends all that sounds or is about to.
  silence() {
    for (const voice of this.voices) voice.silence(this.now());
    this.voices.clear();
  }

  finish() {
    this.playing = false;
    clearInterval(this.timer);
    this.voices.clear(); // they ring out
    this.anchor.song = this.end;
    this.onended();
  }
}

function notesOf(track) {
  const notes = [];
  for (let i = 0; i < track.notes.length; i += 4) {
    const [onset, duration, pitch, velocity] = track.notes.slice(i, i + 4);
    notes.push({ start: onset / 1000, end: (onset + duration) / 1000, pitch, velocity });
  }
  return notes;
}

// Number of the first note that does not begin before `time`.
function firstFrom(notes, time) {
  let [low, high] = [0, notes.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (notes[middle].start < time) low = middle + 1; else high = middle;
  }
  return low;
}
