// Commands of @forge/bridge that need no emulator: what they do in the product's page, done in an ordinary one.
//
// It is served as the second part of bridge.js. Flags and modals are shown in the page. A navigation is logged, since
// there is no product to navigate in. Colors of a theme are not set: only its attributes on <html>.

(() => {
  "use strict";

  const FLAG_SECONDS = 8; // as long as a flag with isAutoDismiss stays
  const WIDTHS = { small: "400px", medium: "600px", large: "800px", xlarge: "968px", max: "100%", fullscreen: "100%" };
  const script = document.currentScript;
  const site = "https://emulated.invalid";
  const { commands } = globalThis.__bridge;

  const log = (text) => console.info(`[emulated] ${text}`);

  // Set by the page that opened this one as a modal.
  function openedAs() {
    try {
      return window.frameElement?.forgeModal;
    } catch {
      return undefined; // the parent is of another origin
    }
  }
  const modal = openedAs();

  // Events go to all frames of the app in one page: the outermost window keeps the listeners.
  function outermost() {
    let frame = window;
    try {
      while (frame !== frame.parent && frame.parent.document) frame = frame.parent;
    } catch {
      // The parent is of another origin.
    }
    return frame;
  }

  const listeners = (outermost().__forgeListeners ??= new Map());
  const copy = (payload) => (payload === undefined ? undefined : JSON.parse(JSON.stringify(payload)));

  const emitter = (kind) => (options) => {
    for (const callback of listeners.get(`${kind} ${options.event}`) ?? []) callback(copy(options.payload));
  };

  const listener =
    (kind) =>
    ({ event, callback }) => {
      const key = `${kind} ${event}`;
      if (!listeners.has(key)) listeners.set(key, new Set());
      listeners.get(key).add(callback);
      const unsubscribe = () => void listeners.get(key).delete(callback);
      window.addEventListener("pagehide", unsubscribe);
      return { unsubscribe };
    };

  function enableTheming() {
    const dark = window.matchMedia?.("(prefers-color-scheme: dark)");
    const root = document.documentElement;
    root.dataset.theme = "dark:dark light:light spacing:spacing typography:typography";
    const follow = () => {
      root.dataset.colorMode = dark?.matches ? "dark" : "light";
      root.style.colorScheme = root.dataset.colorMode;
    };
    dark?.addEventListener("change", follow);
    follow();
  }

  // A history of the package `history`, version 4. The app's path is kept behind the # of the page's address.
  function createHistory() {
    const heard = new Set();
    const read = () => {
      const url = new URL(location.hash.slice(1) || "/", site);
      return { pathname: url.pathname, search: url.search, hash: url.hash, ...window.history.state?.forge };
    };
    const address = (to) => (typeof to === "string" ? to : `${to.pathname ?? "/"}${to.search ?? ""}${to.hash ?? ""}`);
    const changed = (action) => {
      history.action = action;
      history.location = read();
      history.length = window.history.length;
      for (const callback of [...heard]) callback(history.location, action);
    };
    const going = (method, action) => (to, state) => {
      const forge = { state: state ?? to.state, key: Math.random().toString(36).slice(2, 8) };
      const url = new URL(address(to), new URL(address(read()), site));
      window.history[method]({ forge }, "", `#${address(url)}`);
      changed(action);
    };
    const history = {
      action: "POP",
      length: window.history.length,
      location: read(),
      createHref: address,
      push: going("pushState", "PUSH"),
      replace: going("replaceState", "REPLACE"),
      go: (steps) => window.history.go(steps),
      goBack: () => window.history.back(),
      goForward: () => window.history.forward(),
      listen(callback) {
        heard.add(callback);
        return () => void heard.delete(callback);
      },
    };
    window.addEventListener("popstate", () => changed("POP"));
    return history;
  }

  const target = ({ url, type: _, ...described }) => url ?? getUrl(described);

  function getUrl({ target, ...described }) {
    return `${site}/${target}?${new URLSearchParams(described)}`;
  }

  function element(name, style, ...children) {
    const made = document.createElement(name);
    made.style.cssText = style;
    made.append(...children);
    return made;
  }

  const flags = new Map();

  function showFlag({ id, title = "", description = "", type, appearance = type, actions = [], isAutoDismiss }) {
    closeFlag({ id });
    const color = { success: "#1f845a", warning: "#cf9f02", error: "#c9372c" }[appearance] ?? "#0c66e4";
    const close = element("button", "float: right", "×");
    close.setAttribute("aria-label", "Close");
    close.onclick = () => closeFlag({ id });
    const buttons = actions.map(({ text, onClick }) => {
      const button = element("button", "margin: 8px 8px 0 0", text);
      button.onclick = () => onClick();
      return button;
    });
    const flag = element(
      "div",
      `background: #fff; color: #172b4d; border-left: 6px solid ${color}; box-shadow: 0 2px 8px #0006; padding: 12px;` +
        " margin: 8px; width: 320px; font: 14px/1.4 sans-serif",
      close,
      element("strong", "display: block", title),
      element("div", "", description),
      ...buttons,
    );
    flag.setAttribute("role", "alert");
    flags.set(id, flag);
    flagsHost().append(flag);
    if (isAutoDismiss) setTimeout(closeFlag, FLAG_SECONDS * 1000, { id });
  }

  // In a shadow root, so that the app's styles do not apply.
  function flagsHost() {
    const id = "forge-flags";
    if (!document.getElementById(id)) {
      const host = element("div", "position: fixed; bottom: 0; left: 0; z-index: 2147483647");
      host.id = id;
      document.body.append(host);
      host.attachShadow({ mode: "open" });
    }
    return document.getElementById(id).shadowRoot;
  }

  function closeFlag({ id }) {
    flags.get(id)?.remove();
    return flags.delete(id);
  }

  // The page of a modal is this one, or that of its resource:
  // <script src="…/bridge.js" data-resources='{"key": "modal.html"}'>.
  function openModal({ resource, onClose, size, context, closeOnEscape, closeOnOverlayClick, title }) {
    const pages = JSON.parse(script.dataset.resources ?? "{}");
    if (resource !== null && !Object.hasOwn(pages, resource)) {
      console.error(
        `The page of the resource ${resource} is unknown. Name it where the page loads bridge.js:` +
          ` <script src="…/bridge.js" data-resources='{"${resource}": "modal.html"}'>`,
      );
      return false;
    }
    const frame = element("iframe", "border: 0; width: 100%; flex: 1");
    frame.src = new URL(resource === null ? location.href : pages[resource], location.href).href;
    frame.title = title || "Modal";
    const width = WIDTHS[size] ?? size.width ?? WIDTHS.medium;
    const height = size.height ?? (width === "100%" ? "100%" : "80%");
    const box = element(
      "div",
      `background: #fff; display: flex; flex-direction: column; width: ${width}; max-width: 100%; height: ${height}`,
      ...(title ? [element("h1", "font: bold 20px sans-serif; margin: 16px", title)] : []),
      frame,
    );
    const dialog = element(
      "dialog",
      "border: 0; padding: 0; margin: 0; width: 100vw; height: 100vh; max-width: none; max-height: none;" +
        " outline: 0; background: #091e427a; display: flex; align-items: center; justify-content: center",
      box,
    );
    dialog.tabIndex = -1;
    const close = (payload) => {
      dialog.remove();
      onClose(payload);
    };
    frame.forgeModal = { close, context, closeOnEscape };
    dialog.oncancel = (event) => {
      event.preventDefault();
      if (closeOnEscape) close();
    };
    dialog.onclick = (event) => {
      if (closeOnOverlayClick && event.target === dialog) close();
    };
    document.body.append(dialog);
    dialog.showModal?.();
    // Not the frame, which would get the Escape key before it can act on it.
    dialog.focus();
    return true;
  }

  // Within a modal the frame has the focus, and gets the key.
  if (modal?.closeOnEscape) {
    window.addEventListener("keydown", ({ key }) => key === "Escape" && modal.close());
  }

  const closing = new Set();

  async function close(payload) {
    await Promise.all([...closing].map((callback) => callback()));
    if (modal) modal.close(copy(payload));
    else log("view.close(): the product would close this view.");
    return true;
  }

  const getContext = commands.getContext;

  Object.assign(commands, {
    enableTheming,
    createHistory,
    getUrl,
    navigate(described) {
      log(`router: the product would show ${target(described)}${described.type === "new-tab" ? " in a new tab" : ""}.`);
    },
    reload: () => location.reload(),
    on: listener("on"),
    emit: emitter("on"),
    onPublic: listener("onPublic"),
    emitPublic: emitter("onPublic"),
    showFlag,
    closeFlag,
    openModal,
    close,
    submit(payload) {
      if (modal) return close(payload);
      log("view.submit(): the product would take the payload and close this view.");
      return true;
    },
    onClose(callback) {
      closing.add(callback);
      return true;
    },
    open() {
      log("view.open(): the product would open this view.");
      return true;
    },
    refresh() {
      log("view.refresh(): the product would refresh this view.");
      return true;
    },
    emitReadyEvent: () => log("view.emitReadyEvent(): the product now knows that this view is ready."),
    changeWindowTitle(title) {
      document.title = title;
    },
    async getContext() {
      const context = await getContext();
      if (modal) context.extension = { ...context.extension, modal: copy(modal.context) };
      return context;
    },
    getFrameId: () => "emulated",
    isRovoEnabled: () => false,
    openRovo: () => false,
    getCookieConsentPreferences: () => null,
    trackObjectStoreAction() {},
    emitFrontendCustomMetric: ({ customMetricName, value }) => log(`metric ${customMetricName}: ${value}`),
  });
})();
