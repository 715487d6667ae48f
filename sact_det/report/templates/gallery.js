// Galleries: what is looked at, which images, one of them large.

const PAGE = 24; // tiles at once
const DRAWN = 400; // pixels of the longer side of a tile's map
const SVG = "http://www.w3.org/2000/svg";

const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

class Gallery {
  constructor(root) {
    this.root = root;
    this.about = JSON.parse(root.querySelector("script.about").textContent);
    this.texts = [...root.querySelectorAll("script.payload")];
    this.form = root.querySelector("form.controls");
    this.tiles = root.querySelector(".tiles");
    this.more = root.querySelector(".more");
    this.pages = 1;
    this.viewer = new Viewer(this);
    this.seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
      const stage = entry.target.stage;
      entry.isIntersecting ? stage.show() : stage.forget();
    }), { rootMargin: "400px" });
    this.form.addEventListener("submit", (event) => event.preventDefault());
    // The fieldset of looks moves into the dialog and back: it is listened to on its own.
    root.querySelector(".look").addEventListener("input", () => this.look());
    const find = root.querySelector(".find");
    find.open = matchMedia("(min-width: 60rem)").matches; // else it would fill the first screen
    find.addEventListener("input", (event) => {
      if (event.target.name === "key") this.resetRange();
      this.pages = 1;
      this.list();
    });
    this.more.addEventListener("click", () => {
      this.pages += 1;
      this.list();
    });
    this.look(true);
    this.resetRange();
    this.list();
  }

  field(name) {
    return this.root.querySelector(`[name="${name}"]`);
  }

  payload(index) {
    return JSON.parse(this.texts[index].textContent);
  }

  get view() {
    return this.views[Math.min(Number(this.field("budget").value), this.views.length - 1)];
  }

  get layer() {
    return this.about.layers[Number(this.field("layer").value)];
  }

  get score() {
    return Number(this.field("score").value) / 100;
  }

  // What is looked at has changed: the labels, then everything that is drawn.
  look(first = false) {
    const network = this.field("network").value;
    const own = this.about.views.map((view, index) => ({ ...view, index })).filter((view) => view.network === network);
    this.views = own.sort((a, b) => (a.budget ?? Infinity) - (b.budget ?? Infinity));
    const budget = this.field("budget");
    const all = `${network} ${own.length}`;
    if (budget.dataset.of !== all) {
      budget.max = own.length - 1;
      budget.value = own.findIndex((view) => view.budget === null);
      budget.dataset.of = all;
    }
    budget.closest("label").hidden = own.length < 2;
    const share = this.view.budget;
    const told = share === null ? "as trained" : `${Math.round(1000 * share) / 10}% of the FLOPs`;
    this.field("budget-said").value = told;
    budget.setAttribute("aria-valuetext", told);
    this.field("opacity-said").value = `${this.field("opacity").value}%`;
    this.field("score-said").value = this.score.toFixed(2);
    this.root.style.setProperty("--opacity", this.field("opacity").value / 100);
    this.root.style.setProperty("--grey", Math.min(this.field("opacity").value / 50, 1));
    for (const needing of this.root.querySelectorAll(".needs-map")) needing.hidden = !this.layer;
    if (this.layer) this.drawScale();
    if (first) return;
    for (const tile of this.tiles.querySelectorAll(".tile")) tile.stage.update();
    this.viewer.update();
    this.list();
  }

  drawScale() {
    const { limits: [low, high], ticks, unit, name } = this.layer;
    const canvas = this.root.querySelector(".scale canvas");
    const context = canvas.getContext("2d");
    COLOURS.forEach(([red, green, blue], at) => {
      context.fillStyle = `rgb(${red} ${green} ${blue})`;
      context.fillRect(at, 0, 1, 1);
    });
    const marks = ticks.map(([value, text]) => {
      const mark = element("span", { textContent: text });
      mark.style.left = `${(100 * (value - low)) / (high - low)}%`;
      return mark;
    });
    this.root.querySelector(".scale .ticks").replaceChildren(...marks);
    this.root.querySelector(".scale-said").textContent = unit === "units" ? `${name}: ponder cost, in units` : name;
  }

  numberOf(item, key) {
    return item.numbers[this.view.index][key];
  }

  said(number, key) {
    const { digits, unit } = this.about.numbers[key];
    return number === null ? "–" : number.toFixed(digits) + unit;
  }

  // The range of the number that is sorted by; by name, of the first.
  get key() {
    const key = this.field("key").value;
    return key === "name" ? 0 : Number(key);
  }

  get range() {
    const numbers = this.about.items.flatMap((item) => item.numbers.map((own) => own[this.key])).filter((n) => n !== null);
    return [Math.min(...numbers), Math.max(...numbers)];
  }

  resetRange() {
    this.field("low").value = 0;
    this.field("high").value = 100;
  }

  hasClass(item, label) {
    return item.labels.includes(label) ||
      item.found[this.view.index].some(([own, score]) => own === label && (!this.about.scored || score >= this.score));
  }

  // Which images, in which order.
  chosen() {
    const [least, most] = this.range;
    const at = (name) => least + ((most - least) * Number(this.field(name).value)) / 100;
    const [low, high] = [at("low"), at("high")];
    for (const [name, value] of [["low", low], ["high", high]]) {
      this.field(`${name}-said`).value = this.said(value, this.key);
      this.field(name).setAttribute("aria-valuetext", this.said(value, this.key));
    }
    this.root.querySelector(".key-name").textContent = this.about.numbers[this.key].name;
    const everything = this.field("low").value === "0" && this.field("high").value === "100";
    const words = this.field("search").value.toLowerCase().split(/\s+/);
    const label = this.field("class").value;
    const within = (number) => everything || (number !== null && low - 1e-9 <= number && number <= high + 1e-9);
    const found = this.about.items.map((item, index) => index).filter((index) => {
      const item = this.about.items[index];
      const text = `${item.name} ${item.captions[this.view.index]}`.toLowerCase();
      return words.every((word) => text.includes(word)) && within(this.numberOf(item, this.key)) &&
        (label === "" || this.hasClass(item, Number(label)));
    });
    const sign = this.field("descending").checked ? -1 : 1;
    const names = (a, b) => this.about.items[a].name.localeCompare(this.about.items[b].name, "en", { numeric: true });
    const costs = (a, b) => {
      const [first, second] = [a, b].map((index) => this.numberOf(this.about.items[index], this.key) ?? -Infinity);
      return first - second || names(a, b);
    };
    return found.sort((a, b) => sign * (this.field("key").value === "name" ? names : costs)(a, b));
  }

  list() {
    this.order = this.chosen();
    const shown = this.order.slice(0, this.pages * PAGE);
    const known = new Map([...this.tiles.children].map((place) => [place.index, place]));
    const places = shown.map((index) => known.get(index) ?? this.place(index));
    for (const [index, place] of known) if (!shown.includes(index)) this.seen.unobserve(place.firstChild);
    const same = places.length === this.tiles.children.length && places.every((place, at) => place === this.tiles.children[at]);
    if (!same) this.tiles.replaceChildren(...places);
    for (const place of places) place.say();
    this.more.hidden = shown.length === this.order.length;
    const images = `${this.about.items.length} image${this.about.items.length === 1 ? "" : "s"}`;
    this.root.querySelector(".count").textContent = `${this.order.length} of ${images}`;
  }

  place(index) {
    const item = this.about.items[index];
    const name = element("span", { className: "name", textContent: item.name });
    const said = element("span", { className: "said" });
    const stage = element("span", { className: "stage" });
    const tile = element("button", { type: "button", className: "tile" }, stage, name, said);
    tile.stage = new Stage(this, index, stage, DRAWN);
    tile.addEventListener("click", () => this.viewer.open(index));
    const place = element("li", { index }, tile);
    place.style.setProperty("--aspect", item.size[0] / item.size[1]);
    place.say = () => {
      const caption = item.captions[this.view.index];
      const number = `${this.about.numbers[this.key].name} ${this.said(this.numberOf(item, this.key), this.key)}`;
      said.textContent = caption ? `${caption}, ${number}` : number;
    };
    this.seen.observe(tile);
    return place;
  }
}
