import { describePublicReports } from "./public-reports.ts";

// One of each kind of fault; `npm run test:reports` has every one.
describePublicReports([
	"activation",
	"vocabulary-and-merges",
	"unknown-split",
	"word-level",
	"sliding-window",
	"dropped-scales",
	"vision-tower",
	"merge-order",
]);
