// The list of experiments: taken anew every few seconds.

import { live, swap } from "./live.js";

live(swap);
