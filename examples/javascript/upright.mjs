// Turns a decoded photograph the way its camera was held (EXIF's orientation, tag 0x0112), as browsers and OpenCV do.

// The TIFF block of EXIF in a JPEG (APP1) or a PNG (eXIf), or null.
function exifBlock(content) {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  if (content[0] === 0x89) {
    for (let at = 8; at + 8 <= content.length; at += 12 + view.getUint32(at))
      if (view.getUint32(at + 4) === 0x65584966) return new DataView(content.buffer, content.byteOffset + at + 8, view.getUint32(at));
    return null;
  }
  for (let at = 2; at + 10 <= content.length && content[at] === 0xff && content[at + 1] !== 0xda; at += 2 + view.getUint16(at + 2))
    if (content[at + 1] === 0xe1 && view.getUint32(at + 4) === 0x45786966)
      return new DataView(content.buffer, content.byteOffset + at + 10, view.getUint16(at + 2) - 8);
  return null;
}

// The orientation of an image file, 1..8; 1 where it says none, or is broken.
export function orientationOf(content) {
  try {
    const block = exifBlock(content);
    if (!block) return 1;
    const little = block.getUint16(0) === 0x4949;
    const start = block.getUint32(4, little);
    for (let entry = start + 2, left = block.getUint16(start, little); left > 0; entry += 12, left--)
      if (block.getUint16(entry, little) === 0x0112) {
        const value = block.getUint16(entry + 8, little);
        return value >= 1 && value <= 8 ? value : 1;
      }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return 1;
}

// A picture {data, width, height, channels} turned upright.
export function upright(picture, orientation) {
  if (orientation <= 1) return picture;
  const { data, width, height, channels } = picture;
  const swapped = orientation > 4;
  const [across, down] = swapped ? [height, width] : [width, height];
  const flipX = [2, 3, 7, 8].includes(orientation), flipY = [3, 4, 6, 7].includes(orientation);
  const turned = new Uint8Array(data.length);
  for (let y = 0; y < down; y++)
    for (let x = 0; x < across; x++) {
      let [column, row] = swapped ? [y, x] : [x, y];
      if (flipX) column = width - 1 - column;
      if (flipY) row = height - 1 - row;
      const from = (row * width + column) * channels, to = (y * across + x) * channels;
      for (let channel = 0; channel < channels; channel++) turned[to + channel] = data[from + channel];
    }
  return { data: turned, width: across, height: down, channels };
}
