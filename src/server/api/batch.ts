import { AssayError } from '#base/errors.ts'
import type { CallContext } from '#rpc/call.ts'
import type { Status } from '#rpc/gen/spire/api/types/status.ts'
import { wireStatus } from '#rpc/status.ts'
import { notesOf } from './call-notes.ts'
import { malformed, maxItems } from './messages.ts'

/** The outcome of an item that went well. */
export const okStatus: Status = { code: 0, message: 'OK' }

/** How many items are begun at once, in their order: a datastore makes writes that wait together durable at once. */
const togetherItems = 100

/**
 * Answers each item of a batch on its own: one that fails does not hinder the others. Every result has a
 * status, because SPIRE's agents read it without looking whether it is there.
 *
 * @throws AssayError `invalid-argument` for more items than {@link maxItems}.
 */
export async function answerEach<Item, Result extends object, Failure extends object>(
  items: readonly Item[],
  answer: (item: Item) => Result | Promise<Result>,
  failure: (item: Item) => Failure,
): Promise<((Result | Failure) & { readonly status: Status })[]> {
  if (items.length > maxItems) throw malformed('batch', `more than ${maxItems} items`)
  const results: ((Result | Failure) & { readonly status: Status })[] = []
  for (let at = 0; at < items.length; at += togetherItems) {
    results.push(...(await Promise.all(items.slice(at, at + togetherItems).map(answerOne))))
  }
  return results

  async function answerOne(item: Item): Promise<(Result | Failure) & { readonly status: Status }> {
    try {
      return { status: okStatus, ...(await answer(item)) }
    } catch (error) {
      return { ...failure(item), status: itemStatus(error) }
    }
  }
}

/** The outcome of one item of a batch; what is no {@link AssayError} is a bug and ends the whole call. */
export function itemStatus(error: unknown): Status {
  if (!(error instanceof AssayError)) throw error
  return wireStatus(error)
}

/** Most items that an audit record names one by one. */
const maxNoted = 1000

/**
 * Notes for the audit record how each item of a batch ended: its name, or `name: why not`. `nameOf` says what an item,
 * by its place, is about.
 */
export function noted<R extends { readonly results: readonly { readonly status: Status }[] }>(
  context: CallContext,
  response: R,
  nameOf: (index: number) => string,
): R {
  const items = response.results
    .slice(0, maxNoted)
    .map(({ status }, index) =>
      status.code === okStatus.code ? nameOf(index) : `${nameOf(index)}: ${status.message}`,
    )
  notesOf(context).details = { items, count: response.results.length }
  return response
}
