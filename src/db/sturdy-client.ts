import { Client } from "pg";

/**
 * A connection that may break at any moment. pg tells of it by an `error` event, and one without a listener ends the
 * process: the pool listens only while a connection is idle. Whoever uses the connection learns of it by a rejected
 * query, so that nothing is lost by listening here.
 */
export class SturdyClient extends Client {
	constructor(config?: ConstructorParameters<typeof Client>[0]) {
		super(config);
		this.on("error", () => undefined);
	}
}
