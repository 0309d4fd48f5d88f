// Nothing is asked of anybody but of the daemon, and the key is forgotten with the page.
SwaggerUIBundle({
  dom_id: "#page",
  url: "/api/v1/openapi.json",
  validatorUrl: null,
  persistAuthorization: false,
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
});
