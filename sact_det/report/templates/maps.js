"use strict";
// Maps of a network's cost: unpacked, added, coloured.

const COLOURS = JSON.parse(document.getElementById("colours").textContent)
  .map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

// [height, width, step, base64] as packing.py makes it -> {height, width, values: Float32Array}
async function unpackMap([height, width, step, text]) {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const cells = height * width;
  const values = new Float32Array(cells);
  for (let cell = 0; cell < cells; cell++) values[cell] = (planes[cell] | (planes[cells + cell] << 8)) * step;
  return { height, width, values };
}

// Which cell each of `sizeOut` pixels takes: the rule of PonderRecord.map, in float32.
function nearest(sizeIn, sizeOut) {
  const scale = Math.fround(sizeIn / sizeOut);
  return Uint32Array.from({ length: sizeOut }, (_, pixel) => Math.min(Math.floor(Math.fround(pixel * scale)), sizeIn - 1));
}

// The sum of maps at every pixel of an image of this size.
function addMaps(maps, width, height) {
  const sum = new Float32Array(width * height);
  for (const map of maps) {
    const columns = nearest(map.width, width);
    const rows = nearest(map.height, height);
    for (let y = 0, at = 0; y < height; y++) {
      const row = rows[y] * map.width;
      for (let x = 0; x < width; x++, at++) sum[at] += map.values[row + columns[x]];
    }
  }
  return sum;
}

// The sum at one pixel of an image of this size.
function costAt(maps, width, height, x, y) {
  return maps.reduce((sum, map) => {
    const cell = (at, sizeIn, sizeOut) => nearest(sizeIn, sizeOut)[Math.min(Math.max(at, 0), sizeOut - 1)];
    return sum + map.values[cell(y, map.height, height) * map.width + cell(x, map.width, width)];
  }, 0);
}

// Draws maps on a canvas of so many pixels; low is the darkest colour, high the brightest.
function drawMaps(canvas, maps, width, height, [low, high]) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const sum = addMaps(maps, width, height);
  for (let at = 0; at < sum.length; at++) {
    const share = Math.min(Math.max((sum[at] - low) / (high - low), 0), 1);
    const [red, green, blue] = COLOURS[Math.min(Math.floor(share * 256), 255)];
    image.data.set([red, green, blue, 255], 4 * at);
  }
  context.putImageData(image, 0, 0);
}
