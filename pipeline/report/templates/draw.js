// The drawing of the report. lenet5.js and digit.js of the bundle stand before it in the same script.

const section = document.getElementById("draw");
const find = (name) => document.getElementById(`draw-${name}`);
const [sheet, seen, answer, penState] = ["sheet", "seen", "answer", "pen"].map(find);
const bars = [...find("bars").children];
const threshold = Number(section.dataset.threshold);
const pen = sheet.getContext("2d", { willReadFrequently: true });
const module = Uint8Array.from(atob(section.dataset.module), (char) => char.charCodeAt(0));
const classify = await load(module);
const STEP = 8; // pixels that an arrow key moves the pen

let strokes = []; // lists of [x, y], in pixels of the sheet
let at = [sheet.width / 2, sheet.height / 2]; // the keyboard's pen
let isDown = false; // and whether it draws
let held = null; // the mouse, finger or pen that draws; another one beside it does not

// The sheet's ink, 0 to 255; nothing but strokes is on it.
function ink() {
  pen.clearRect(0, 0, sheet.width, sheet.height);
  Object.assign(pen, { lineWidth: 16, lineCap: "round", lineJoin: "round", strokeStyle: "#000" });
  for (const points of strokes) {
    pen.beginPath();
    pen.moveTo(...points[0]);
    for (const point of points) pen.lineTo(...point);
    pen.stroke();
  }
  return pen.getImageData(0, 0, sheet.width, sheet.height).data.filter((_, i) => i % 4 === 3);
}

function drawCursor() {
  if (document.activeElement !== sheet || !sheet.matches(":focus-visible")) return;
  Object.assign(pen, { lineWidth: 2, strokeStyle: isDown ? "#d55e00" : "#0072b2" });
  pen.beginPath();
  pen.arc(...at, 11, 0, 2 * Math.PI);
  pen.stroke();
}

function look() {
  const digit = toDigit(ink(), sheet.height, sheet.width);
  drawCursor();
  show(digit);
}

// Show a digit, 784 grey levels or null, and what the model says of it.
function show(digit) {
  const picture = new ImageData(28, 28);
  picture.data.forEach((_, i) => {
    picture.data[i] = i % 4 === 3 ? 255 : digit?.[i >> 2] ?? 0;
  });
  seen.getContext("2d").putImageData(picture, 0, 0);
  const { label, probabilities } = digit ? classify(digit) : { probabilities: [] };
  bars.forEach((bar, i) => {
    const share = probabilities[i] ?? 0;
    bar.classList.toggle("best", i === label);
    bar.querySelector(".bar").style.setProperty("--used", `${100 * share}%`);
    bar.querySelector("output").textContent = digit ? percent(share) : "";
  });
  answer.textContent = digit ? say(label, probabilities[label], time(digit)) : "";
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function say(label, probability, us) {
  const name = bars[label].querySelector("b").textContent;
  const isSure = probability >= threshold;
  const result = isSure ? `${name}, ${percent(probability)}` : `unsure: ${name}? ${percent(probability)}`;
  return `${result}, in ${us < 10 ? us.toFixed(1) : us.toFixed(0)} µs`;
}

// Microseconds of a call; a browser's clock is coarse, so of many.
function time(digit) {
  const start = performance.now();
  let calls = 0;
  do {
    classify(digit);
    calls += 1;
  } while (performance.now() - start < 4);
  return 1000 * (performance.now() - start) / calls;
}

let waits = false; // look at most once a frame
function lookSoon() {
  if (waits) return;
  waits = true;
  requestAnimationFrame(() => {
    waits = false;
    look();
  });
}

function place(event) {
  const box = sheet.getBoundingClientRect();
  const scale = sheet.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

sheet.onpointerdown = (event) => {
  if (event.button !== 0 || held !== null) return;
  lift();
  held = event.pointerId;
  sheet.setPointerCapture(held);
  answer.setAttribute("aria-busy", "true"); // read aloud when the stroke has ended
  strokes.push([place(event)]);
  lookSoon();
};
sheet.onpointermove = (event) => {
  if (event.pointerId !== held) return;
  const passed = event.getCoalescedEvents?.() ?? [];
  strokes.at(-1).push(...(passed.length ? passed : [event]).map(place));
  lookSoon();
};
sheet.onpointerup = sheet.onpointercancel = (event) => {
  if (event.pointerId !== held) return;
  lift();
  lookSoon();
};

// The stroke has ended, whatever drew it.
function lift() {
  isDown = false;
  held = null;
  penState.textContent = "";
  answer.removeAttribute("aria-busy");
}

function undo() {
  lift();
  strokes.pop();
  look();
}

function clear() {
  lift();
  strokes = [];
  look();
}

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
sheet.onkeydown = (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const move = MOVES[event.key];
  if (move) {
    const inside = (value, most) => Math.min(Math.max(value, STEP), most - STEP);
    at = [inside(at[0] + STEP * move[0], sheet.width), inside(at[1] + STEP * move[1], sheet.height)];
    if (isDown) strokes.at(-1).push(at);
  } else if (event.key === " ") {
    const wasDown = isDown;
    lift();
    isDown = !wasDown;
    if (isDown) strokes.push([at]);
    penState.textContent = isDown ? "pen down" : "pen up";
  } else if (event.key === "Backspace") undo();
  else if (event.key === "Delete") clear();
  else return;
  event.preventDefault();
  look();
};
sheet.onfocus = sheet.onblur = () => {
  ink();
  drawCursor();
};
find("undo").onclick = undo;
find("clear").onclick = clear;

for (const button of find("images").querySelectorAll("button")) {
  button.onclick = () => {
    clear();
    const canvas = Object.assign(document.createElement("canvas"), { width: 28, height: 28 });
    const context = canvas.getContext("2d");
    context.drawImage(button.querySelector("img"), 0, 0, 28, 28);
    const { data } = context.getImageData(0, 0, 28, 28);
    show(data.filter((_, i) => i % 4 === 0).map((grey) => 255 - grey)); // shown as ink on paper
  };
}
look();
