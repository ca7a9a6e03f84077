import { AsyncLocalStorage } from "node:async_hooks";
import type { PGlite, Transaction } from "@electric-sql/pglite";
import {
	type CompiledQuery,
	type DatabaseConnection,
	type Dialect,
	type Driver,
	PostgresAdapter,
	PostgresIntrospector,
	PostgresQueryCompiler,
	type QueryResult,
} from "kysely";

/**
 * Kysely's own PGlite dialect hands one connection object to everybody: a query that runs beside a transaction joins it,
 * and two transactions overwrite each other's commit. Here every acquire gets an object of its own, and PGlite's mutex
 * keeps them apart.
 */

type Scope = { open: boolean };

/** Knows whether the running code was called from inside a transaction's callback. */
type TransactionGuard = {
	inside<T>(work: () => Promise<T>): Promise<T>;
	/** Throws when a query on the main handle would wait for the transaction that waits for it. */
	assertOutside(what: string): void;
};

export function createTransactionGuard(): TransactionGuard {
	const storage = new AsyncLocalStorage<Scope>();
	return {
		async inside(work) {
			const scope: Scope = { open: true };
			try {
				return await storage.run(scope, work);
			} finally {
				// Timers started inside keep the scope; the transaction they were started in is over.
				scope.open = false;
			}
		},
		assertOutside(what) {
			if (storage.getStore()?.open === true) {
				throw new Error(
					`${what} was asked of the main handle inside a transaction; on the embedded database that never returns. Use the transaction's handle.`,
				);
			}
		},
	};
}

class PGliteConnection implements DatabaseConnection {
	readonly #pglite: PGlite;
	readonly #guard: TransactionGuard;
	#transaction: { tx: Transaction; finish: (commit: boolean) => void; finished: Promise<void> } | null = null;

	constructor(pglite: PGlite, guard: TransactionGuard) {
		this.#pglite = pglite;
		this.#guard = guard;
	}

	async executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
		if (this.#transaction === null) this.#guard.assertOutside("A query");
		const target = this.#transaction?.tx ?? this.#pglite;
		const { rows, affectedRows } = await target.query<R>(query.sql, [...query.parameters]);
		return affectedRows === undefined ? { rows } : { rows, numAffectedRows: BigInt(affectedRows) };
	}

	// biome-ignore lint/correctness/useYield: the interface asks for it; nothing here streams.
	async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
		throw new Error("The embedded database does not stream.");
	}

	async begin(): Promise<void> {
		this.#guard.assertOutside("A transaction");
		const begun = Promise.withResolvers<Transaction>();
		const end = Promise.withResolvers<boolean>();
		const finished = this.#pglite.transaction(async (tx) => {
			begun.resolve(tx);
			if (!(await end.promise)) await tx.rollback();
		});
		finished.catch(begun.reject);
		const tx = await begun.promise;
		this.#transaction = { tx, finish: end.resolve, finished: finished.then(() => undefined) };
	}

	async end(commit: boolean): Promise<void> {
		const transaction = this.#transaction;
		if (transaction === null) return;
		this.#transaction = null;
		transaction.finish(commit);
		if (commit) await transaction.finished;
		else await transaction.finished.catch(() => undefined);
	}
}

class PGliteDriver implements Driver {
	readonly #pglite: PGlite;
	readonly #guard: TransactionGuard;

	constructor(pglite: PGlite, guard: TransactionGuard) {
		this.#pglite = pglite;
		this.#guard = guard;
	}

	async init(): Promise<void> {
		await this.#pglite.waitReady;
	}
	async acquireConnection(): Promise<PGliteConnection> {
		return new PGliteConnection(this.#pglite, this.#guard);
	}
	async beginTransaction(connection: DatabaseConnection): Promise<void> {
		await own(connection).begin();
	}
	async commitTransaction(connection: DatabaseConnection): Promise<void> {
		await own(connection).end(true);
	}
	async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
		await own(connection).end(false);
	}
	async releaseConnection(): Promise<void> {}
	/** The instance is shared with the queue; whoever opened it closes it. */
	async destroy(): Promise<void> {}
}

function own(connection: DatabaseConnection): PGliteConnection {
	if (!(connection instanceof PGliteConnection)) throw new Error("A foreign connection.");
	return connection;
}

export function pgliteDialect(pglite: PGlite, guard: TransactionGuard): Dialect {
	return {
		createAdapter: () => new PostgresAdapter(),
		createDriver: () => new PGliteDriver(pglite, guard),
		createIntrospector: (db) => new PostgresIntrospector(db),
		createQueryCompiler: () => new PostgresQueryCompiler(),
	};
}
