import { Router } from "express";
import { type HubContext, identityOf, mayRead, openRepo, parameter, requireIdentity } from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { userOverview } from "../people.ts";
import { fullName, REPO_TYPES } from "../repo-store.ts";

/** Who likes which repo. On the Hub a page alone can like, so that scripts do not; here a token can, for rehearsals. */
export function likeRoutes(context: HubContext): Router {
	const router = Router();

	for (const type of REPO_TYPES) {
		const base = `/api/${type}s/:ns/:name`;
		for (const method of ["post", "delete"] as const)
			router[method](`${base}/like`, async (request, response) => {
				const { repo } = openRepo(context, request, type, "read");
				const { name } = requireIdentity(context, request).user;
				await context.repos.locked(repo, async () => {
					const others = repo.record.likes.filter(({ user }) => user !== name);
					const mine = method === "post" ? [{ user: name, at: context.clock.now().toISOString() }] : [];
					await context.repos.saveRecord(repo, { likes: [...others, ...mine] });
				});
				response.json({});
			});

		router.get(`${base}/likers`, (request, response) => {
			const { repo } = openRepo(context, request, type, "read");
			response.json(
				repo.record.likes.flatMap(({ user, at }) => {
					const found = context.accounts.user(user);
					return found === null ? [] : [{ ...userOverview(context, found, ""), likedAt: at }];
				}),
			);
		});
	}

	router.get("/api/users/:user/likes", (request, response) => {
		const identity = identityOf(context, request);
		const user = context.accounts.user(parameter(request, "user"));
		if (user === null) throw new HubError(404, "User not found");
		response.json(
			context.repos
				.all()
				.filter((repo) => mayRead(repo, identity))
				.flatMap((repo) =>
					repo.record.likes
						.filter((like) => like.user === user.name)
						.map(({ at }) => ({ createdAt: at, repo: { name: fullName(repo), type: repo.record.type } })),
				)
				.sort((one, other) => other.createdAt.localeCompare(one.createdAt)),
		);
	});
	return router;
}
