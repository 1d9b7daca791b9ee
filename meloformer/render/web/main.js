// The page: buttons, keys, and the cursor.
const $ = (id) => document.getElementById(id);
const piece = JSON.parse($("piece").textContent);
const player = new Player(piece);
const roll = new Roll(piece, player, $("scroll"), $("paper"), $("roll"));

function barAt(seconds) {
  let bar = 0;
  while (bar + 1 < piece.bars.length && piece.bars[bar + 1] <= 1000 * seconds + 1) bar += 1;
  return bar;
}

function clock(seconds) { return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`; }

function showPlace() {
  const place = player.position;
  $("cursor").style.transform = `translateX(${roll.x(place) - 1}px)`;
  $("cursor").style.visibility = roll.x(place) >= $("scroll").scrollLeft + roll.gutter - 2 ? "visible" : "hidden";
  const text = `bar ${barAt(place) + 1} of ${piece.bars.length}, ${clock(place)}`;
  if ($("place").value !== text) {
    $("place").value = text;
    $("position").setAttribute("aria-valuetext", text);
  }
  if (document.activeElement !== $("position") || player.playing) $("position").value = String(Math.round((1000 * place) / player.end));
}

function showPlaying() {
  $("play").setAttribute("aria-pressed", String(player.playing));
  $("play").setAttribute("aria-label", player.playing ? "Pause" : "Play");
  $("playing").setAttribute("d", player.playing ? "M3 2h4v12H3zM9 2h4v12H9z" : "M3 1l11 7-11 7z");
}

// The cursor is followed while it was in view: whoever scrolls away is left there.
let wasInView = true;
function frame() {
  const view = $("scroll");
  const x = roll.x(player.position) - view.scrollLeft;
  const inView = x >= roll.gutter - 4 && x <= view.clientWidth - 24;
  if (wasInView && !inView && x > view.clientWidth - 24) view.scrollLeft += x - roll.gutter - 24;
  wasInView = inView || (wasInView && x > view.clientWidth - 24);
  showPlace();
  if (player.playing) requestAnimationFrame(frame);
}

async function toggle() {
  if (player.playing) player.pause(); else {
    wasInView = true;
    const started = player.play();
    showPlaying();
    $("silent").hidden = Boolean(window.AudioContext);
    await started;
    requestAnimationFrame(frame);
  }
  showPlaying();
  showPlace();
}

function stop() { player.stop(); showPlaying(); $("scroll").scrollLeft = 0; showPlace(); }

function seek(seconds) {
  player.seek(seconds);
  const x = roll.x(player.position) - $("scroll").scrollLeft;
  if (x < roll.gutter || x > $("scroll").clientWidth) $("scroll").scrollLeft += x - roll.gutter - 24;
  wasInView = true;
  showPlace();
}

function seekByBars(bars) {
  const here = barAt(player.position);
  const inside = 1000 * player.position - piece.bars[here] > 400;
  const bar = Math.max(0, Math.min(piece.bars.length - 1, here + bars + (bars < 0 && inside ? 1 : 0)));
  seek(piece.bars[bar] / 1000);
}

function showTempo() {
  const percent = Number($("tempo").value);
  $("bpm").value = `${Math.round((piece.bpm * percent) / 100)} bpm`;
  $("tempo").setAttribute("aria-valuetext", `${$("bpm").value}, ${percent} percent`);
}

function zoom() {
  const [least, most] = roll.range();
  const middle = roll.seconds($("scroll").scrollLeft + roll.gutter);
  roll.scale = least * (most / least) ** (Number($("zoom").value) / 100);
  roll.resize();
  $("scroll").scrollLeft = roll.x(middle) - roll.gutter;
  showPlace();
}

function button(text, label, pressed, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.title = label;
  made.setAttribute("aria-label", label);
  made.setAttribute("aria-pressed", String(pressed()));
  made.addEventListener("click", () => {
    act();
    player.mix();
    for (const item of $("tracks").children) item.refresh();
    roll.draw();
  });
  made.refresh = () => made.setAttribute("aria-pressed", String(pressed()));
  return made;
}

function listTracks() {
  const paper = getComputedStyle(document.documentElement).getPropertyValue("--panel").trim();
  $("tracks").replaceChildren(...piece.tracks.map((track, number) => {
    const state = player.tracks[number];
    const item = document.createElement("li");
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = readable(track.colour, paper);
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = track.name;
    const mute = button("M", `Mute ${track.name}`, () => state.muted, () => { state.muted = !state.muted; });
    const solo = button("S", `Solo ${track.name}`, () => state.solo, () => { state.solo = !state.solo; });
    item.append(swatch, name, mute, solo);
    item.refresh = () => { mute.refresh(); solo.refresh(); item.classList.toggle("quiet", !player.audible(state)); };
    item.refresh();
    return item;
  }));
}

$("play").addEventListener("click", toggle);
$("stop").addEventListener("click", stop);
$("position").addEventListener("input", () => seek((Number($("position").value) / 1000) * player.end));
$("tempo").addEventListener("input", () => { player.setRate(Number($("tempo").value) / 100); showTempo(); });
$("volume").addEventListener("input", () => player.setVolume(Number($("volume").value) / 100));
$("zoom").addEventListener("input", zoom);
$("scroll").addEventListener("scroll", () => { roll.draw(); showPlace(); });
$("paper").addEventListener("click", (event) => seek(roll.seconds(event.clientX - $("paper").getBoundingClientRect().left)));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const onSlider = event.target.matches("input");
  if (event.key === " " && !event.target.matches("button")) { event.preventDefault(); toggle(); }
  else if (event.key === "ArrowRight" && !onSlider) { event.preventDefault(); seekByBars(1); }
  else if (event.key === "ArrowLeft" && !onSlider) { event.preventDefault(); seekByBars(-1); }
  else if (event.key === "Home" && !onSlider) { event.preventDefault(); stop(); }
});
document.addEventListener("visibilitychange", () => { if (player.playing && player.context) player.schedule(); });
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { listTracks(); roll.draw(); });
new ResizeObserver(() => { zoom(); }).observe($("scroll"));
player.onended = () => { showPlaying(); showPlace(); };
$("roll").setAttribute("aria-label", `Piano roll of ${piece.title}: ${piece.bars.length} bars, ${piece.tracks.map((track) => track.name).join(", ")}`);
listTracks();
showTempo();
showPlaying();
const [least, most] = roll.range();
const wished = Math.max(least, Math.min(70, most)); // whole short pieces, readable long ones
$("zoom").value = String(Math.round((100 * Math.log(wished / least)) / Math.log(most / least)));
zoom();
