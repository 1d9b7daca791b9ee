// How a note of each family of instruments sounds: partials of one period, a filter, an envelope.
//
// partials: amplitude of harmonics 1, 2, 3 ...; attack, decay, release in seconds; sustain as a share of the peak;
// bright: the filter opens to so many times the pitch; detune: cents between two oscillators; vibrato: cents.
const FAMILIES = {
  "piano": { partials: [1, 0.5, 0.28, 0.16, 0.1, 0.06, 0.04], attack: 0.004, decay: 1.4, sustain: 0.08, release: 0.18, bright: 7, gain: 0.9 },
  "chromatic percussion": { partials: [1, 0, 0.05, 0.45, 0, 0, 0.1], attack: 0.002, decay: 0.9, sustain: 0, release: 0.35, bright: 12, gain: 0.8 },
  "organ": { partials: [1, 0.75, 0.4, 0.45, 0.1, 0.25, 0, 0.25], attack: 0.012, decay: 0.1, sustain: 0.9, release: 0.06, bright: 10, gain: 0.5 },
  "guitar": { partials: [1, 0.7, 0.45, 0.3, 0.2, 0.12, 0.08], attack: 0.004, decay: 0.9, sustain: 0.1, release: 0.12, bright: 6, gain: 0.8 },
  "bass": { partials: [1, 0.55, 0.3, 0.12, 0.06], attack: 0.006, decay: 0.9, sustain: 0.35, release: 0.08, bright: 5, gain: 1.2 },
  "strings": { partials: [1, 0.5, 0.4, 0.3, 0.22, 0.18, 0.12, 0.1], attack: 0.06, decay: 0.2, sustain: 0.85, release: 0.16, bright: 6, vibrato: 9, gain: 0.55 },
  "ensemble": { partials: [1, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08], attack: 0.09, decay: 0.2, sustain: 0.85, release: 0.25, bright: 5, detune: 9, gain: 0.4 },
  "brass": { partials: [1, 0.9, 0.75, 0.55, 0.4, 0.28, 0.2, 0.12], attack: 0.03, decay: 0.15, sustain: 0.8, release: 0.09, bright: 5, gain: 0.45 },
  "reed": { partials: [1, 0.15, 0.7, 0.1, 0.4, 0.08, 0.2], attack: 0.025, decay: 0.1, sustain: 0.85, release: 0.08, bright: 7, vibrato: 5, gain: 0.5 },
  "pipe": { partials: [1, 0.12, 0.08, 0.02], attack: 0.04, decay: 0.1, sustain: 0.9, release: 0.1, bright: 6, vibrato: 8, gain: 0.75 },
  "synth lead": { partials: [1, 0.5, 0.33, 0.25, 0.2, 0.17, 0.14, 0.12, 0.11], attack: 0.008, decay: 0.15, sustain: 0.75, release: 0.08, bright: 6, detune: 6, gain: 0.4 },
  "synth pad": { partials: [1, 0.4, 0.2, 0.12, 0.08], attack: 0.25, decay: 0.4, sustain: 0.85, release: 0.5, bright: 4, detune: 12, gain: 0.4 },
  "synth effects": { partials: [1, 0.2, 0.4, 0.1, 0.3, 0.05, 0.2], attack: 0.12, decay: 0.6, sustain: 0.5, release: 0.5, bright: 5, detune: 14, gain: 0.4 },
  "ethnic": { partials: [1, 0.8, 0.5, 0.45, 0.3, 0.25, 0.15], attack: 0.003, decay: 0.6, sustain: 0.08, release: 0.12, bright: 8, gain: 0.7 },
  "percussive": { partials: [1, 0.1, 0.3, 0.05, 0.2], attack: 0.002, decay: 0.35, sustain: 0, release: 0.15, bright: 8, gain: 0.8 },
  "sound effects": { partials: [1, 0.5, 0.5, 0.5], attack: 0.05, decay: 0.5, sustain: 0.3, release: 0.3, bright: 3, gain: 0.3 },
};

const waves = new Map();

function waveOf(context, family) {
  if (!waves.has(family)) {
    const { partials } = FAMILIES[family];
    const imaginary = new Float32Array([0, ...partials]);
    waves.set(family, context.createPeriodicWave(new Float32Array(imaginary.length), imaginary));
  }
  return waves.get(family);
}

// Starts a note at `time` (seconds of the audio clock); returns what can end it before its time.
function startNote(context, output, family, note, time, duration) {
  const timbre = FAMILIES[family];
  const hertz = 440 * 2 ** ((note.pitch - 69) / 12);
  const loudness = (note.velocity / 127) ** 1.5 * timbre.gain * 0.32;
  const envelope = new GainNode(context, { gain: 0 });
  const filter = new BiquadFilterNode(context, {
    type: "lowpass", Q: 0.4, frequency: Math.min(16000, hertz * timbre.bright * (0.5 + note.velocity / 127)),
  });
  const end = time + Math.max(duration, timbre.attack);
  envelope.gain.setValueAtTime(0, time);
  envelope.gain.linearRampToValueAtTime(loudness, time + timbre.attack);
  envelope.gain.setTargetAtTime(loudness * timbre.sustain, time + timbre.attack, timbre.decay / 3);
  envelope.gain.setTargetAtTime(0, end, timbre.release / 3);
  const last = end + 2 * timbre.release;
  const spread = timbre.detune ? [-timbre.detune / 2, timbre.detune / 2] : [0];
  const sources = spread.map((detune) => {
    const oscillator = new OscillatorNode(context, { frequency: hertz, detune, periodicWave: waveOf(context, family) });
    oscillator.connect(filter);
    return oscillator;
  });
  if (timbre.vibrato && duration > 0.25) {
    const vibrato = new OscillatorNode(context, { frequency: 5.4 });
    const amount = new GainNode(context, { gain: 0 });
    amount.gain.setValueAtTime(0, time + 0.15);
    amount.gain.linearRampToValueAtTime(timbre.vibrato, time + 0.5);
    vibrato.connect(amount);
    for (const source of sources) amount.connect(source.detune);
    sources.push(vibrato);
  }
  filter.connect(envelope).connect(output);
  for (const source of sources) { source.start(time); source.stop(last); }
  sources[0].onended = () => envelope.disconnect();
  return { last, silence: (now) => silence(envelope, sources, now) };
}

// Ends a sound within some 20 ms, without a click.
function silence(envelope, sources, now) {
  envelope.gain.cancelScheduledValues(now);
  envelope.gain.setTargetAtTime(0, now, 0.006);
  for (const source of sources) source.stop(now + 0.04);
}
