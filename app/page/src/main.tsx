// The page at `/` of a gateway.
import { render } from "preact";
import { follow } from "./gateway/models";
import { Shell } from "./shell/shell";

const host = document.getElementById("page")!;
host.replaceChildren();
render(<Shell />, host);
follow();
