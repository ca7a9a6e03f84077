/** Connections that ended or could not be made, a server that restarts, and transactions that lost a race. */
const PASSING_CODES =
	/^(08\w{3}|57P0[1-3]|53300|40001|40P01|ECONNRESET|ECONNREFUSED|ECONNABORTED|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN)$/;
/** What pg says of them without a code. */
const PASSING_MESSAGES =
	/^Connection terminated|^timeout exceeded when trying to connect|^Client has encountered a connection error|^Client was closed/;

/** Whether the database was only out of reach: the same work succeeds later, so that it says nothing about the work. */
export function isBrokenConnection(error: unknown): boolean {
	if (!(error instanceof Error)) return false;
	const code = "code" in error && typeof error.code === "string" ? error.code : "";
	return PASSING_CODES.test(code) || PASSING_MESSAGES.test(error.message);
}
