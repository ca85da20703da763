// The contrast of each text that is seen to what is behind it, by WCAG 2: [[contrast, text], ...]
const canvas = document.createElement('canvas').getContext('2d');
function read(color) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  return canvas.getImageData(0, 0, 1, 1).data;
}
function light(color) {
  const [r, g, b] = Array.from(color).map(v => v / 255).map(
    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function behind(element) {
  for (let one = element; one; one = one.parentElement) {
    const color = read(getComputedStyle(one).backgroundColor);
    if (color[3] === 255) return color;
  }
  return [255, 255, 255];
}
const found = [];
for (const element of document.body.querySelectorAll('*')) {
  const text = Array.from(element.childNodes).filter(n => n.nodeType === 3).map(n => n.data.trim()).join('');
  if (!text || !element.getClientRects().length) continue;
  const style = getComputedStyle(element);
  const inDrawing = element.closest('svg') !== null;
  const pair = [light(read(inDrawing ? style.fill : style.color)), light(behind(element))].sort((a, b) => b - a);
  found.push([(pair[0] + 0.05) / (pair[1] + 0.05), text]);
}
return found;
