// An image under its map and its boxes, at one size of the canvas.

class Stage {
  constructor(gallery, index, root, longest) {
    Object.assign(this, { gallery, index, root, longest });
    [this.width, this.height] = gallery.about.items[index].size;
    root.style.aspectRatio = `${this.width} / ${this.height}`;
    root.style.setProperty("--aspect", this.width / this.height);
  }

  async show() {
    if (this.shown) return;
    this.shown = true;
    this.payload = this.gallery.payload(this.index);
    this.image = element("img", { alt: "", decoding: "async", src: this.payload.picture });
    this.canvas = element("canvas", { ariaHidden: "true" });
    this.boxes = document.createElementNS(SVG, "svg");
    this.boxes.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.boxes.setAttribute("aria-hidden", "true");
    this.root.replaceChildren(this.image, this.canvas, this.boxes);
    await this.update();
  }

  // Out of sight: nothing is kept but the place.
  forget() {
    this.shown = false;
    this.root.replaceChildren();
    this.payload = this.maps = this.of = undefined;
  }

  async update() {
    if (!this.shown) return;
    this.drawBoxes();
    const view = this.gallery.view.index;
    const packed = this.payload.views[view].maps;
    if (this.of !== view) {
      this.of = view;
      this.maps = undefined;
      const maps = await Promise.all(packed.map(unpackMap));
      if (!this.shown || this.of !== view) return;
      this.maps = maps;
    }
    if (this.maps) this.drawMap();
  }

  get chosen() {
    return this.maps?.length ? this.gallery.layer.maps.map((number) => this.maps[number]) : [];
  }

  drawMap() {
    const scale = Math.min(1, this.longest / Math.max(this.width, this.height));
    const size = [this.width, this.height].map((side) => Math.max(1, Math.round(side * scale)));
    const any = this.chosen.length > 0;
    this.canvas.hidden = !any;
    this.image.classList.toggle("bare", !any);
    if (any) drawMaps(this.canvas, this.chosen, ...size, this.gallery.layer.limits);
  }

  drawBoxes() {
    const { boxes, shapes } = this.payload.views[this.gallery.view.index];
    const found = boxes.map((box, number) => ({ box, shape: shapes?.[number] ?? {} }));
    const shown = found.filter(({ box }) => !this.gallery.about.scored || box[5] >= this.gallery.score).reverse();
    const drawn = this.gallery.field("shapes").checked ? shown.map(({ box, shape }) => this.shape(shape, box[4])) : [];
    drawn.push(...shown.map(({ box }) => this.box(box, false)));
    if (this.gallery.field("truth").checked) drawn.push(...this.payload.truth.map((box) => this.box(box, true)));
    this.boxes.replaceChildren(...drawn);
    if (this.root.classList.contains("large")) this.placeLabels(); // elsewhere there are none
  }

  // A label stands at its box where it covers no other, the surest box's first; where there is no such place, nowhere.
  placeLabels() {
    const taken = [];
    const texts = (boxes) => [...this.boxes.querySelectorAll(`${boxes} text`)];
    for (const text of [...texts("g:not(.truth)").reverse(), ...texts(".truth")]) {
      const [left, top, wide, high] = ["x", "y", "width", "height"].map((name) => Number(text.parentNode.querySelector("rect").getAttribute(name)));
      const size = Number(text.getAttribute("font-size"));
      const width = text.getComputedTextLength() + size / 2;
      const height = 1.3 * size;
      const [right, bottom] = [left + wide - width, top + high];
      const rows = [top - height, top, bottom - height, bottom];
      const places = rows.flatMap((y) => [left, right].map((x) => [Math.max(0, Math.min(x, this.width - width)), y]));
      const free = places.find(([x, y]) => y >= 0 && y + height <= this.height &&
        taken.every(([ownX, ownY, ownWidth, ownHeight]) => x + width <= ownX || ownX + ownWidth <= x || y + height <= ownY || ownY + ownHeight <= y));
      if (free) {
        taken.push([...free, width, height]);
        text.setAttribute("x", free[0] + size / 4);
        text.setAttribute("y", free[1] + size);
      } else text.remove();
    }
  }

  // A mask, and keypoints with the lines between them.
  shape({ mask, points = [] }, label) {
    const group = document.createElementNS(SVG, "g");
    group.setAttribute("class", `b${label % 8}`);
    const add = (name, attributes) => {
      const made = document.createElementNS(SVG, name);
      Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
      group.append(made);
    };
    if (mask) add("path", { d: mask, class: "mask", "fill-rule": "evenodd" });
    for (const line of ["ground", "line"]) {
      for (const [from, to] of this.gallery.about.skeleton ?? []) {
        const [start, end] = [points[from], points[to]];
        if (start && end) add("line", { x1: start[0], y1: start[1], x2: end[0], y2: end[1], class: line });
      }
    }
    const radius = (3 * this.width) / (this.root.clientWidth || 640);
    for (const point of points) if (point) add("circle", { cx: point[0], cy: point[1], r: radius, class: "point" });
    return group;
  }

  // The dark line under the coloured one is seen on any ground.
  box([x, y, width, height, label, score], truth) {
    const group = document.createElementNS(SVG, "g");
    group.setAttribute("class", truth ? "truth" : `b${label % 8}`);
    for (const line of ["ground", "line"]) {
      const rectangle = document.createElementNS(SVG, "rect");
      Object.entries({ x, y, width, height, class: line }).forEach(([key, value]) => rectangle.setAttribute(key, value));
      group.append(rectangle);
    }
    const text = document.createElementNS(SVG, "text");
    const name = this.gallery.about.classes[label] ?? `class ${label}`;
    text.textContent = truth ? name : `${name} ${Math.round(100 * score)}%`;
    const size = (13 * this.width) / (this.root.clientWidth || 640);
    text.setAttribute("font-size", size);
    group.append(text);
    return group;
  }

  // What the map says at a place of the image, both from 0 to 1.
  cost(x, y) {
    return this.chosen.length ? costAt(this.chosen, this.width, this.height, Math.floor(x * this.width), Math.floor(y * this.height)) : null;
  }
}
