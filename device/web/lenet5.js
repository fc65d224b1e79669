// The int8 model in a browser, bit for bit what it answers on a device.
//
//     const classify = await load();
//     const { label, probabilities } = classify(pixels); // 784 bytes, row by row, white on black
//
// load() fetches lenet5_int8.wasm from beside this file. load(bytes) takes its bytes, as node (20 or later) needs it:
//     const classify = await load(await readFile("web/lenet5_int8.wasm"));
export async function load(bytes) {
  bytes ??= await (await fetch(new URL("lenet5_int8.wasm", import.meta.url))).arrayBuffer();
  const { exports } = (await WebAssembly.instantiate(bytes)).instance;
  const image = new Uint8Array(exports.memory.buffer, exports.image(), 784);
  const outputs = new Int8Array(exports.memory.buffer, exports.outputs(), exports.classes());
  return (pixels) => {
    if (pixels.length !== image.length) throw new RangeError("28 x 28 pixels are needed");
    image.set(pixels);
    exports.run();
    const values = Array.from(outputs, (value) => value + 128); // probabilities in steps of 1/256
    const sum = Math.max(values.reduce((a, b) => a + b), 0.5);
    const label = values.indexOf(Math.max(...values));
    return { label, probabilities: values.map((value) => value / sum) };
  };
}
