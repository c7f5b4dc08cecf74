// What markup in the sources becomes calls of.
export { Fragment, h } from "preact";
