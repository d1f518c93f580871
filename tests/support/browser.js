// What a page shows: texts beyond its width, and texts whose contrast is below WCAG's AA. Leaves the result as the page's text.
const wide = innerWidth + 0.5;
const found = {
  errors: window.failed, width: innerWidth, scroll: document.documentElement.scrollWidth, cut: [], faint: [], texts: 0,
};
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
function rgb(colour) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
}
function luminance(colour) {
  const [r, g, b] = colour.map(v => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function behind(element) {
  for (; element; element = element.parentElement) {
    const colour = rgb(getComputedStyle(element).backgroundColor);
    if (colour[3] === 255) return colour;
  }
  return [255, 255, 255, 255];
}
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
  const range = document.createRange();
  range.selectNodeContents(walker.currentNode);
  const box = range.getBoundingClientRect();
  if (!text || !box.width || ['STYLE', 'SCRIPT', 'TITLE'].includes(element.tagName)) continue;
  found.texts++;
  if (box.right > wide || box.left < -0.5) found.cut.push(text.slice(0, 60));
  const style = getComputedStyle(element);
  const ink = luminance(rgb(element.namespaceURI.endsWith('svg') ? style.fill : style.color));
  const paper = luminance(behind(element));
  const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  if (contrast < 4.5) found.faint.push([text.slice(0, 60), contrast.toFixed(2)]);
}
document.body.textContent = 'LOOKED' + JSON.stringify(found) + 'END';
