// Drums: noise through a filter, a falling sine, or both. Keys are those of General MIDI's percussion map.
//
// noise: [type of filter, hertz, Q, loudness, seconds]; tone: [from hertz, to hertz, loudness, seconds, shape]
const KICK = { tone: [150, 45, 1.1, 0.28, "sine"], noise: ["lowpass", 900, 0.5, 0.15, 0.03] };
const SNARE = { tone: [210, 150, 0.45, 0.12, "triangle"], noise: ["highpass", 1500, 0.6, 0.55, 0.19] };
const CLOSED_HAT = { noise: ["highpass", 7500, 0.8, 0.35, 0.05] };
const OPEN_HAT = { noise: ["highpass", 7000, 0.8, 0.35, 0.38] };
const CRASH = { noise: ["highpass", 4200, 0.5, 0.42, 1.3] };
const RIDE = { tone: [5100, 5000, 0.05, 0.5, "square"], noise: ["bandpass", 7800, 1.2, 0.28, 0.55] };
const BELL = { tone: [3100, 3100, 0.16, 0.7, "square"] };
const CLICK = { tone: [1800, 1500, 0.3, 0.05, "triangle"], noise: ["bandpass", 2600, 3, 0.3, 0.04] };
const CLAP = { noise: ["bandpass", 1300, 1.3, 0.8, 0.17] };
const SHAKER = { noise: ["bandpass", 6200, 1, 0.35, 0.08] };
const tom = (hertz) => ({ tone: [hertz * 1.6, hertz, 0.8, 0.3, "sine"], noise: ["lowpass", 1200, 0.5, 0.12, 0.05] });
const skin = (hertz) => ({ tone: [hertz * 1.15, hertz, 0.6, 0.16, "sine"], noise: ["bandpass", hertz * 3, 1, 0.1, 0.03] });
const ping = (hertz, seconds) => ({ tone: [hertz, hertz, 0.3, seconds, "square"] });
const block = (hertz) => ({ tone: [hertz, hertz * 0.97, 0.5, 0.07, "sine"] });

const DRUMS = {
  35: KICK, 36: KICK, 37: CLICK, 38: SNARE, 39: CLAP, 40: SNARE, 41: tom(80), 42: CLOSED_HAT, 43: tom(98), 44: CLOSED_HAT,
  45: tom(120), 46: OPEN_HAT, 47: tom(145), 48: tom(175), 49: CRASH, 50: tom(210), 51: RIDE, 52: CRASH, 53: BELL, 54: SHAKER,
  55: CRASH, 56: ping(560, 0.25), 57: CRASH, 58: SHAKER, 59: RIDE, 60: skin(420), 61: skin(300), 62: skin(340), 63: skin(310),
  64: skin(210), 65: skin(380), 66: skin(260), 67: ping(900, 0.18), 68: ping(680, 0.18), 69: SHAKER, 70: SHAKER,
  71: ping(2300, 0.12), 72: ping(2200, 0.35), 73: SHAKER, 74: SHAKER, 75: block(2500), 76: block(1100), 77: block(760),
  78: skin(520), 79: skin(440), 80: ping(4100, 0.06), 81: ping(4100, 0.6),
};

let noiseBuffer = null;

function noiseOf(context) {
  if (!noiseBuffer) {
    noiseBuffer = context.createBuffer(1, 2 * context.sampleRate, context.sampleRate);
    const samples = noiseBuffer.getChannelData(0);
    for (let i = 0; i < samples.length; i += 1) samples[i] = 2 * Math.random() - 1;
  }
  return noiseBuffer;
}

// Starts a hit at `time` (seconds of the audio clock); returns what can end it before its time.
function startDrum(context, output, note, time) {
  const { tone, noise } = DRUMS[note.pitch] ?? CLICK;
  const loudness = (note.velocity / 127) ** 1.4 * 0.6;
  const hit = new GainNode(context, { gain: 1 });
  const sources = [];
  let last = time;
  const fading = (source, level, seconds) => {
    const gain = new GainNode(context, { gain: 0 });
    gain.gain.setValueAtTime(loudness * level, time);
    gain.gain.exponentialRampToValueAtTime(0.0001, time + seconds);
    source.connect(gain).connect(hit);
    last = Math.max(last, time + seconds);
  };
  if (tone) {
    const [from, to, level, seconds, type] = tone;
    const oscillator = new OscillatorNode(context, { type });
    oscillator.frequency.setValueAtTime(from, time);
    oscillator.frequency.exponentialRampToValueAtTime(to, time + seconds / 3);
    fading(oscillator, level, seconds);
    sources.push(oscillator);
  }
  if (noise) {
    const [type, frequency, Q, level, seconds] = noise;
    const source = new AudioBufferSourceNode(context, { buffer: noiseOf(context), loop: true });
    const filter = new BiquadFilterNode(context, { type, frequency, Q });
    source.connect(filter);
    fading(filter, level, seconds);
    sources.push(source);
  }
  hit.connect(output);
  for (const source of sources) { source.start(time); source.stop(last); }
  sources[0].onended = () => hit.disconnect();
  return { last, silence: (now) => silence(hit, sources, now) };
}
