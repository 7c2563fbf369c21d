// Swagger UI 5.32, and what axe-core misses in it: headings in order, no link inside a button, a name for each control.
const headed = ({React: {createElement: make}}) => ({
  wrapComponents: {
    Button: (Original) => (given) =>
      make(Original, typeof given.children === "string" ? {...given, "aria-label": undefined} : given),
    DeepLink: () => ({text}) => make("span", null, text),
    // No choice of a server: the page talks to the API that served it.
    ServersContainer: () => () => make("h2", null, "API key"),
    FilterContainer: () => () => make("h2", {className: "wrapper"}, "Operations"),
  },
});
const names = {
  ".close-modal": () => "Close",
  ".copy-to-clipboard button": () => "Copy",
  ".body-param__text": () => "Request body",
  "tr[data-param-name] :is(input, select)": (one) => one.closest("tr").dataset.paramName,
  "table[role=region]": (one) => one.id,
};
const page = document.getElementById("page");
new MutationObserver(() => {
  for (const [selector, name] of Object.entries(names))
    for (const one of page.querySelectorAll(selector)) one.setAttribute("aria-label", name(one));
}).observe(page, {childList: true, subtree: true});

SwaggerUIBundle({
  url: "openapi.json",
  domNode: page,
  plugins: [headed],
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  defaultModelsExpandDepth: -1,
  validatorUrl: null,
});
