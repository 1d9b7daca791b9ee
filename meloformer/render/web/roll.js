// Draws the part of the piano roll that is in view. All lengths are in CSS pixels.
const GUTTER = 46; // names of octaves and drums
const RULER = 36; // chords above, bar numbers below
const DRUM_LINE = 13;
const BLACK_KEYS = new Set([1, 3, 6, 8, 10]);

class Roll {
  constructor(piece, player, scroll, paper, canvas) {
    Object.assign(this, { piece, player, scroll, paper, canvas });
    const pitches = piece.tracks.filter((track) => track.family !== "drums").flatMap((track) => track.notes.filter((_, i) => i % 4 === 2));
    this.low = pitches.reduce((a, b) => Math.min(a, b), 127);
    this.high = pitches.reduce((a, b) => Math.max(a, b), 0);
    if (!pitches.length) [this.low, this.high] = [60, 72];
    this.drumLine = new Map(piece.drums.map(([pitch], line) => [pitch, line]));
    this.gutter = piece.drums.length ? 116 : GUTTER;
    this.longest = player.tracks.map((track) => track.notes.reduce((longest, note) => Math.max(longest, note.end - note.start), 0));
    this.scale = 60; // pixels a second
  }

  x(seconds) { return this.gutter + seconds * this.scale; }

  seconds(x) { return (x - this.gutter) / this.scale; }

  // Pixels a second at which the whole piece fits into the view, and at which single notes are wide.
  range() {
    const fit = Math.max(1, (this.scroll.clientWidth - this.gutter - 8) / Math.max(this.piece.end / 1000, 0.1));
    return [fit, Math.max(400, 2 * fit)];
  }

  resize() {
    const narrow = this.scroll.clientWidth < 560;
    this.gutter = narrow || !this.piece.drums.length ? GUTTER : 116;
    this.width = this.scroll.clientWidth;
    this.height = this.scroll.clientHeight;
    const dots = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.width * dots);
    this.canvas.height = Math.round(this.height * dots);
    this.canvas.style.width = `${this.width}px`;
    this.canvas.style.height = `${this.height}px`;
    this.dots = dots;
    const drums = this.piece.drums.length;
    this.drumHeight = drums ? Math.min(drums * DRUM_LINE, 0.35 * (this.height - RULER)) : 0;
    this.line = (this.height - RULER - this.drumHeight - 12) / (this.high - this.low + 3);
    this.paper.style.width = `${Math.max(this.width, this.x(this.piece.end / 1000) + 8)}px`;
    this.draw();
  }

  top(pitch) { return RULER + 4 + (this.high + 1 - pitch) * this.line; }

  draw() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const pen = this.canvas.getContext("2d");
    pen.setTransform(this.dots, 0, 0, this.dots, 0, 0);
    pen.fillStyle = colour("roll");
    pen.fillRect(0, 0, this.width, this.height);
    const left = this.scroll.scrollLeft;
    const view = [this.seconds(left + this.gutter), this.seconds(left + this.width)];
    this.drawPaper(pen, colour, left);
    this.piece.tracks.forEach((track, number) => this.drawTrack(pen, track, this.player.tracks[number], this.longest[number], left, view, colour));
    this.drawRuler(pen, colour, left);
    this.drawGutter(pen, colour);
  }

  drawPaper(pen, colour, left) {
    pen.fillStyle = colour("shade");
    for (let pitch = this.low - 1; pitch <= this.high + 1; pitch += 1) {
      if (BLACK_KEYS.has(pitch % 12)) pen.fillRect(0, this.top(pitch), this.width, this.line);
    }
    pen.fillStyle = colour("beat");
    for (const start of [...this.piece.bars, this.piece.end]) pen.fillRect(Math.round(this.x(start / 1000) - left), RULER - 16, 1, this.height);
    pen.fillStyle = colour("line");
    if (this.drumHeight) pen.fillRect(0, this.height - this.drumHeight - 6, this.width, 1);
  }

  drawTrack(pen, track, state, longest, left, [from, to], colour) {
    const heard = this.player.audible(state);
    pen.fillStyle = readable(track.colour, colour("roll"));
    const drums = track.family === "drums";
    for (let i = firstFrom(state.notes, from - longest); i < state.notes.length && state.notes[i].start < to; i += 1) {
      const note = state.notes[i];
      pen.globalAlpha = heard ? 0.6 + (0.4 * note.velocity) / 127 : 0.13;
      const start = this.x(note.start) - left;
      if (drums) {
        const step = this.drumHeight / this.piece.drums.length;
        const y = this.height - 3 - (this.drumLine.get(note.pitch) + 1) * step;
        pen.fillRect(start, y + 1, Math.max(2, Math.min(5, 0.05 * this.scale)), Math.max(step - 2, 1.5));
      } else {
        const width = Math.max((note.end - note.start) * this.scale - 1, 1.5);
        pen.fillRect(start, this.top(note.pitch) + 0.5, width, Math.max(this.line - 1, 1.5));
      }
    }
    pen.globalAlpha = 1;
  }

  drawRuler(pen, colour, left) {
    pen.fillStyle = colour("panel");
    pen.fillRect(0, 0, this.width, RULER);
    pen.textBaseline = "middle";
    let freeNumber = -Infinity;
    this.piece.bars.forEach((start, bar) => {
      const x = this.x(start / 1000) - left;
      if (x < freeNumber) return;
      pen.fillStyle = colour("faint");
      pen.font = "11px system-ui, sans-serif";
      if (x > this.gutter - 40 && x < this.width) pen.fillText(String(bar + 1), x + 3, RULER - 9);
      freeNumber = x + 14 + pen.measureText(String(bar + 1)).width;
    });
    this.drawChords(pen, colour, left);
  }

  // The name of every chord where it begins, or at the first of its bars that the name before leaves free. One that
  // reaches into a longer chord is left out, as that of a pickup would hide the first bar's.
  drawChords(pen, colour, left) {
    pen.fillStyle = colour("ink");
    pen.font = "600 13px system-ui, sans-serif";
    const { bars, chords, end } = this.piece;
    const begins = chords.map((_, bar) => bar).filter((bar) => bar === 0 || chords[bar] !== chords[bar - 1]);
    const edges = [...begins, bars.length].map((bar) => this.x((bar < bars.length ? bars[bar] : end) / 1000) - left);
    let free = -Infinity;
    begins.forEach((first, number) => {
      const name = chords[first];
      const reach = 10 + pen.measureText(name).width;
      const [from, to, next] = edges.slice(number, number + 3);
      if (!name || (from + reach > to && to - from < next - to)) return;
      const own = bars.slice(first, begins[number + 1]).map((start) => this.x(start / 1000) - left);
      const x = own.find((place) => place >= free);
      if (x === undefined) return;
      if (x > this.gutter - 80 && x < this.width) pen.fillText(name, x + 3, 11);
      free = x + reach;
    });
  }

  drawGutter(pen, colour) {
    pen.fillStyle = colour("panel");
    pen.fillRect(0, 0, this.gutter - 2, this.height);
    pen.fillStyle = colour("faint");
    pen.textBaseline = "middle";
    pen.font = "11px system-ui, sans-serif";
    pen.textAlign = "right";
    for (let pitch = this.low - 1; pitch <= this.high + 1; pitch += 1) {
      if (pitch % 12 === 0) pen.fillText(`C${pitch / 12 - 1}`, this.gutter - 8, this.top(pitch) + this.line / 2);
    }
    const step = this.drumHeight / Math.max(this.piece.drums.length, 1);
    pen.font = "10px system-ui, sans-serif";
    if (this.gutter === GUTTER) {
      if (this.drumHeight) pen.fillText("drums", this.gutter - 6, this.height - this.drumHeight / 2);
    } else if (step >= 9) {
      this.piece.drums.forEach(([, name], line) => pen.fillText(name, this.gutter - 8, this.height - 3 - (line + 0.5) * step, this.gutter - 10));
    }
    pen.textAlign = "left";
  }
}

// The colour, mixed with black or white until it stands out from the paper: a contrast of 3, as WCAG asks of graphics, and
// more on dark paper, where soft notes are darker.
function readable(colour, paper) {
  const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = luminance(parts(paper));
  const [towards, wanted] = ground < 0.2 ? [255, 4.5] : [0, 3];
  let rgb = parts(colour);
  for (let i = 0; i < 20; i += 1) {
    const [darker, lighter] = [luminance(rgb), ground].sort((a, b) => a - b);
    if ((lighter + 0.05) / (darker + 0.05) >= wanted) break;
    rgb = rgb.map((part) => part + 0.1 * (towards - part));
  }
  return `rgb(${rgb.map(Math.round).join(" ")})`;
}
