import { describePublicReports } from "./public-reports.ts";

describePublicReports();
