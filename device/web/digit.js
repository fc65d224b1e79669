// A drawing -> the 28x28 grey levels that MNIST holds: the last steps of photo/form.py, which explains
// them; a drawing needs no search for its ink. A plane is {data, height, width}, row by row.

const SIDE = 28; // MNIST image
const BOX = 20; // MNIST digit
const FINE = 5; // strokes are evened out on a grid this much finer than MNIST's
const THICKNESS = [2.0, 3.5]; // MNIST pixels

// Bring a drawing into the form of an MNIST image.
// ink: the drawing's grey levels, row by row, 0 (no ink) to 255 (full ink).
// Returns 784 grey levels, white ink on black, or null for a drawing without ink.
export function toDigit(ink, height, width) {
  const strokes = map({ data: ink, height, width }, (grey) => clip((grey / 255 - 0.2) / 0.6, 0, 1));
  if (!strokes.data.some((value) => value > 0.5)) return null;
  return centreByMass(map(fit(evenThickness(strokes), BOX), (value) => toEven(255 * value)));
}

const clip = (value, low, high) => Math.min(Math.max(value, low), high);

const map = (plane, change) => ({ ...plane, data: Float64Array.from(plane.data, change) });

// Round as Python does: a half goes to the even number.
function toEven(value) {
  const down = Math.floor(value);
  return value - down === 0.5 ? down + (down % 2) : Math.round(value);
}

// The plane that at(y, x) gives.
function build(height, width, at) {
  const data = new Float64Array(height * width);
  for (let i = 0; i < data.length; i++) data[i] = at(Math.floor(i / width), i % width);
  return { data, height, width };
}

// Cut to the strokes and scale their longer side to `side`, aspect ratio kept.
function fit({ data, width }, side) {
  const inked = [...data.keys()].filter((i) => data[i] > 0.5);
  const least = (values) => values.reduce((a, b) => Math.min(a, b));
  const most = (values) => values.reduce((a, b) => Math.max(a, b));
  const [rows, columns] = [inked.map((i) => Math.floor(i / width)), inked.map((i) => i % width)];
  const [top, left] = [least(rows), least(columns)];
  const [height, wide] = [most(rows) - top + 1, most(columns) - left + 1];
  const scale = side / Math.max(height, wide);
  const size = (length) => Math.max(1, toEven(length * scale));
  const down = weights(height, size(height));
  const across = weights(wide, size(wide));
  const sum = (shares, at) => shares.reduce((total, [i, share]) => total + share * at(i), 0);
  const narrow = build(height, across.length, (y, x) =>
    sum(across[x], (i) => data[(top + y) * width + left + i]));
  return build(down.length, across.length, (y, x) =>
    sum(down[y], (i) => narrow.data[i * narrow.width + x]));
}

// How much of each of n pixels goes into each of m: areas when it shrinks, linear when it grows.
function weights(n, m) {
  const scale = n / m;
  return Array.from({ length: m }, (_, j) => {
    const centre = clip((j + 0.5) * scale - 0.5, 0, n - 1);
    const share = (i) => scale > 1
      ? (clip((j + 1) * scale - i, 0, 1) - clip(j * scale - i, 0, 1)) / scale
      : clip(1 - Math.abs(centre - i), 0, 1);
    return Array.from({ length: n }, (_, i) => [i, share(i)]).filter(([, value]) => value > 0);
  });
}

// Thicken a thin pen's strokes and thin a marker's to within what MNIST holds.
function evenThickness(strokes) {
  const [inner, margin] = [fit(strokes, BOX * FINE), 2 * FINE];
  const grey = build(inner.height + 2 * margin, inner.width + 2 * margin, (y, x) => {
    const [row, column] = [y - margin, x - margin];
    const inside = row >= 0 && row < inner.height && column >= 0 && column < inner.width;
    return inside ? toEven(255 * inner.data[row * inner.width + column]) : 0;
  });
  const isInk = (i) => grey.data[i] > 127;
  let [area, edge] = [0, 0];
  grey.data.forEach((_, i) => {
    if (!isInk(i)) return;
    area += 1;
    for (const step of [1, -1, grey.width, -grey.width]) edge += !isInk(i + step);
  });
  const thickness = 2.4 * area / edge / FINE; // of a long stroke: twice its area over its outline
  const change = clip(thickness, ...THICKNESS) - thickness;
  const radius = toEven(Math.abs(change) * FINE / 2);
  const inverse = (plane) => map(plane, (value) => 255 - value);
  let grown = change > 0 ? disc(grey, radius) : inverse(disc(inverse(grey), radius));
  if (!grown.data.some((value) => value > 127)) grown = grey;
  return map(grown, (value) => value / 255);
}

// Largest value within about `radius` pixels: cross and square in turn make an octagon. The margin
// is wider than the radius: no ink reaches the frame, and what lies beyond it does not count.
function disc(plane, radius) {
  const cross = [1, -1, plane.width, -plane.width];
  const square = [...cross, ...cross.slice(2).flatMap((row) => [row + 1, row - 1])];
  for (let step = 0; step < radius; step++) {
    const [{ data }, near] = [plane, step % 2 ? square : cross];
    plane = map(plane, (most, i) => near.reduce((a, b) => Math.max(a, data[i + b] ?? 0), most));
  }
  return plane;
}

// Place the digit so that its centre of mass is in the middle, to the nearest pixel.
function centreByMass({ data, height, width }) {
  let [mass, down, across] = [0, 0, 0];
  data.forEach((value, i) => {
    mass += value;
    down += value * Math.floor(i / width);
    across += value * (i % width);
  });
  const top = clip(toEven(SIDE / 2 - down / mass), 0, SIDE - height);
  const left = clip(toEven(SIDE / 2 - across / mass), 0, SIDE - width);
  const image = new Uint8Array(SIDE * SIDE);
  data.forEach((value, i) => {
    image[(top + Math.floor(i / width)) * SIDE + left + (i % width)] = value;
  });
  return image;
}
