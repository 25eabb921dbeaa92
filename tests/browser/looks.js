// What is wrong with how a page looks and sounds; each function returns what it found, nothing if all is well.
({
  // Elements that are seen and reach over an edge of the screen; what scrolls in a box of its own does not.
  outside: (width) =>
    [...document.body.querySelectorAll("*")]
      .filter((element) => {
        const box = element.getBoundingClientRect();
        const seen = box.width > 1 && box.height > 1 && !element.closest(".skip, .adapters input");
        return seen && (box.left < -0.5 || box.right > width + 0.5);
      })
      .map((element) => element.outerHTML.slice(0, 120)),

  // Texts below the contrast of WCAG 2.2, 1.4.3 (level AA), and edges of fields below 1.4.11.
  faint: () => {
    const channel = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const parse = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
    const light = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
    const ratio = (one, two) => {
      const [high, low] = [light(one), light(two)].sort((a, b) => b - a);
      return (high + 0.05) / (low + 0.05);
    };
    const behind = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const colour = parse(getComputedStyle(at).backgroundColor);
        if (colour.length === 3 || colour[3] === 1) return colour;
      }
      return [255, 255, 255];
    };
    const faint = [];
    const judge = (element, colour, wanted, what) => {
      const found = ratio(parse(colour), behind(what === "edge" ? element.parentElement : element));
      if (found < wanted) faint.push(`${what} ${found.toFixed(2)}: ${element.outerHTML.slice(0, 100)}`);
    };
    for (const element of document.body.querySelectorAll("*")) {
      const box = element.getBoundingClientRect();
      const style = getComputedStyle(element);
      if (box.width < 2 || box.height < 2 || style.visibility === "hidden") continue;
      const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      if ((own || element.matches("textarea, input:not([type=checkbox])")) && !element.closest("svg"))
        judge(element, style.color, large ? 3 : 4.5, "text");
      if (element.matches("textarea, input:not([type=checkbox]), button:not(.main), .track"))
        judge(element, style.borderTopColor, 3, "edge");
    }
    return faint;
  },

  // What a screen reader could not tell: no name, a name for nothing, an id twice, a heading out of order.
  unheard: () => {
    const wrong = [];
    const all = [...document.querySelectorAll("*")];
    const ids = all.map((element) => element.id).filter(Boolean);
    const told = (element) => element.outerHTML.slice(0, 100);
    for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push(`id twice: ${id}`);
    for (const element of all) {
      for (const name of ["aria-labelledby", "aria-describedby", "for"]) {
        const wanted = element.getAttribute(name);
        if (wanted && !document.getElementById(wanted)) wrong.push(`${name} of nothing: ${told(element)}`);
      }
      if (element.tabIndex > 0) wrong.push(`a place of its own: ${told(element)}`);
      if (element.hasAttribute("style")) wrong.push(`a style of its own: ${told(element)}`);
      if (
        element.matches("input, textarea, output") &&
        !element.labels?.length &&
        !element.hasAttribute("aria-labelledby")
      )
        wrong.push(`no label: ${told(element)}`);
      if (element.matches("button, summary, a, th") && !element.textContent.trim())
        wrong.push(`no text: ${told(element)}`);
      if (element.matches("svg") && !element.closest("[aria-hidden=true]") && !element.getAttribute("aria-label"))
        wrong.push(`no words: ${told(element)}`);
      if (element.matches("section") && !element.hasAttribute("aria-labelledby") && !element.hasAttribute("aria-label"))
        wrong.push(`no name: ${told(element)}`);
      if (element.matches("progress") && !element.getAttribute("aria-label")) wrong.push(`no name: ${told(element)}`);
    }
    const levels = [...document.querySelectorAll("h1, h2, h3")].map((heading) => Number(heading.tagName[1]));
    levels.forEach(
      (level, index) =>
        level > (levels[index - 1] ?? 0) + 1 && wrong.push(`a heading of level ${level} after ${levels[index - 1]}`),
    );
    if (levels.filter((level) => level === 1).length !== 1) wrong.push("not one heading of level 1");
    if (document.documentElement.lang !== "en") wrong.push("no language");
    return wrong;
  },
});
