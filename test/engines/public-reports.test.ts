import { describePublicReports } from "./public-reports.ts";

// One of each kind of fault; `npm run test:reports` has every one.
describePublicReports([
	"activation",
	"own-head",
	"vocabulary-and-merges",
	"unknown-split",
	"word-level",
	"added-tokens-in-config",
	"sliding-window",
	"yarn-factors",
	"dropped-scales",
	"vision-tower",
	"merge-order",
	"adapter",
]);
