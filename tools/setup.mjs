// Installs and builds what is missing; silent when nothing is.
import { setUpOrExit } from "./lib/setup.mjs";

await setUpOrExit();
