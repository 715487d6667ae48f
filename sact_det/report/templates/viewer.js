// One image, large, with every map of it and the cost under the pointer.

class Viewer {
  constructor(gallery) {
    this.gallery = gallery;
    this.dialog = gallery.root.querySelector("dialog");
    this.part = (name) => this.dialog.querySelector(name);
    this.look = gallery.root.querySelector(".look");
    this.home = this.look.parentElement;
    this.large = this.part(".large");
    this.part(".close").addEventListener("click", () => this.dialog.close());
    this.part(".previous").addEventListener("click", () => this.go(-1));
    this.part(".next").addEventListener("click", () => this.go(1));
    this.dialog.addEventListener("close", () => this.home.prepend(this.look));
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.large.addEventListener("pointermove", (event) => {
      const { left, top, width, height } = this.large.getBoundingClientRect();
      this.point((event.clientX - left) / width, (event.clientY - top) / height);
    });
    this.large.addEventListener("pointerleave", () => this.say());
  }

  open(index) {
    this.part(".side").append(this.look);
    if (!this.dialog.open) this.dialog.showModal();
    this.show(index);
  }

  async show(index) {
    this.index = index;
    this.at = undefined;
    this.part("h4").textContent = this.gallery.about.items[index].name;
    this.stage?.forget();
    this.stage = new Stage(this.gallery, index, this.large, 1024);
    await this.stage.show();
    this.update();
  }

  go(step) {
    const { order } = this.gallery;
    if (!order.length) return;
    this.show(order[(order.indexOf(this.index) + step + order.length) % order.length]);
  }

  key(event) {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const arrow = arrows[event.key];
    if (!arrow || event.target.matches("input, select")) return;
    if (event.target === this.large) {
      event.preventDefault();
      const [x, y] = this.at ?? [0.5, 0.5];
      this.point(x + arrow[0] / 50, y + arrow[1] / 50);
    } else if (arrow[0]) {
      this.go(arrow[0]);
    }
  }

  point(x, y) {
    this.at = [x, y].map((share) => Math.min(Math.max(share, 0), 0.9999));
    this.say();
  }

  say() {
    if (!this.stage?.maps) return;
    const { layer } = this.gallery;
    let text = layer ? "Point at the image to read the map." : "";
    if (layer && !this.stage.chosen.length) text = "This network spends the same everywhere.";
    if (this.at && this.stage.chosen.length) {
      const pixel = [this.at[0] * this.stage.width, this.at[1] * this.stage.height].map(Math.floor);
      const value = this.stage.cost(...this.at);
      text = `${layer.name} at (${pixel}): ${value.toFixed(2)}${layer.unit && ` ${layer.unit}`}`;
      this.large.style.setProperty("--x", `${100 * this.at[0]}%`);
      this.large.style.setProperty("--y", `${100 * this.at[1]}%`);
    }
    this.large.classList.toggle("pointed", Boolean(this.at && this.stage.chosen.length));
    this.part(".under").textContent = text;
  }

  async update() {
    if (!this.dialog.open || !this.stage) return;
    await this.stage.update();
    const { about, view } = this.gallery;
    const item = about.items[this.index];
    const facts = about.numbers.map((number, key) => [number.name, this.gallery.said(item.numbers[view.index][key], key)]);
    if (item.captions[view.index]) facts.unshift(["found", item.captions[view.index]]);
    this.part(".facts").replaceChildren(...facts.map(([name, said]) =>
      element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: said }))));
    this.drawLayers();
    this.say();
  }

  // Every map of the image, on its own scale; pressing one lays it over the image.
  drawLayers() {
    const { layers } = this.gallery.about;
    const maps = this.stage.maps ?? [];
    const shown = maps.length && layers.length > 1 ? layers : [];
    this.part(".layers").replaceChildren(...shown.map((layer, number) => {
      const canvas = element("canvas", { ariaHidden: "true" });
      const scale = 200 / Math.max(this.stage.width, this.stage.height);
      const size = [this.stage.width, this.stage.height].map((side) => Math.max(1, Math.round(side * scale)));
      drawMaps(canvas, layer.maps.map((own) => maps[own]), ...size, layer.limits);
      const [low, high] = layer.limits;
      const name = element("span", { textContent: `${layer.name}, ${low.toFixed(1)} to ${high.toFixed(1)}` });
      const button = element("button", { type: "button", className: "layer" }, canvas, name);
      button.setAttribute("aria-pressed", String(layer === this.gallery.layer));
      button.addEventListener("click", () => {
        this.gallery.field("layer").value = String(number);
        this.gallery.look();
      });
      return button;
    }));
  }
}

for (const root of document.querySelectorAll(".gallery")) new Gallery(root);
