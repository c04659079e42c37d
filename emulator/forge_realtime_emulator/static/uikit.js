// A minimum of UI Kit: draws what @forge/react gives to `reconcile` as plain HTML.
//
// It is served as the third part of bridge.js. It draws text, headings, buttons and the boxes around them. Another
// component is a dashed box with its name and its children, and is named in the console once.

(() => {
  "use strict";

  const { commands } = globalThis.__bridge;
  const FLEX = "display: flex; align-items: flex-start;";
  const DRAWN = {
    Root: ["div", ""],
    Text: ["p", "margin: 0"],
    Strong: ["strong", ""],
    Em: ["em", ""],
    Strike: ["s", ""],
    Code: ["code", ""],
    Heading: ["h2", "margin: 0"],
    Button: ["button", ""],
    ButtonGroup: ["div", `${FLEX} gap: 4px`],
    Box: ["div", ""],
    Inline: ["div", FLEX],
    Stack: ["div", `${FLEX} flex-direction: column`],
  };
  const elements = new Map(); // by the key of the component
  const named = new Set();

  function create(type) {
    if (type === "String") return document.createTextNode("");
    const [tag, style] = DRAWN[type] ?? ["div", "border: 1px dashed; padding: 4px"];
    const made = document.createElement(tag);
    made.style.cssText = style;
    if (Object.hasOwn(DRAWN, type)) return made;
    made.title = `UI Kit's ${type} is not drawn`;
    if (!named.has(type)) {
      console.error(`The emulator does not draw UI Kit's ${type}. It draws ${Object.keys(DRAWN).join(", ")}.`);
    }
    named.add(type);
    return made;
  }

  // space.100 is 8 px.
  const pixels = (space) => `${Number(space.split(".")[1]) * 0.08}px`;

  function draw({ type, key, props, children }) {
    if (!elements.has(key)) elements.set(key, create(type));
    const drawn = elements.get(key);
    if (type === "String") {
      if (drawn.data !== props.text) drawn.data = props.text;
      return drawn;
    }
    if (props.space) drawn.style.gap = pixels(props.space);
    if (type === "Button") {
      drawn.disabled = Boolean(props.isDisabled);
      drawn.onclick = () => props.onClick?.({ type: "click" });
    }
    const inner = children.map(draw);
    // An element that is put in again loses the focus, so those that stay are not touched.
    for (const child of [...drawn.childNodes]) if (!inner.includes(child)) child.remove();
    inner.forEach((child, at) => {
      if (child !== drawn.childNodes[at]) drawn.insertBefore(child, drawn.childNodes[at] ?? null);
    });
    return drawn;
  }

  Object.assign(commands, {
    reconcile({ forgeDoc }) {
      const root = draw(forgeDoc);
      if (!root.isConnected) document.body.append(root);
    },
    onError: ({ error }) => console.error(error),
  });
})();
