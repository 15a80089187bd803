import type { CallContext } from '#rpc/call.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import type { Person } from '../administrators/approvals.ts'
import type { Rights } from '../administrators/rights.ts'
import type { AttestedNodeRecord } from '../datastore/datastore.ts'

/** Who a call is from, as far as the method it calls asked; `via` is what said so. */
export type Caller =
  | { readonly class: 'any' }
  | { readonly class: 'local'; readonly via: 'transport'; readonly rights: Rights }
  | { readonly class: 'admin'; readonly via: 'config' | 'entries'; readonly rights: Rights }
  | { readonly class: 'downstream'; readonly via: 'entries' }
  | { readonly class: 'agent'; readonly via: 'datastore'; readonly node: AttestedNodeRecord }

const callers = new WeakMap<CallContext, Caller>()
const users = new WeakMap<CallContext, string>()

/** Remembers who a call is from, for its handler and its audit record. */
export function setCaller(context: CallContext, caller: Caller): Caller {
  callers.set(context, caller)
  return caller
}

/** Undefined for a call that was not authorized. */
export const callerOf = (context: CallContext): Caller | undefined => callers.get(context)

/** Remembers the name of a local caller's user. */
export function setUser(context: CallContext, name: string | undefined): void {
  if (name !== undefined) users.set(context, name)
}

/** The name of a local caller's user, when it has one and the call came as far as being authorized. */
export const userOf = (context: CallContext): string | undefined => users.get(context)

/** Who the administrator is that calls, for approvals: one Unix user is one person, and so is one SPIFFE ID. */
export function personOf(context: CallContext): Person {
  const { peer } = context
  const key = peer.kind === 'unix' ? `uid ${peer.uid}` : peer.spiffeId
  if (key === undefined) throw new TypeError(`${context.method} was called by nobody`)
  const user = userOf(context)
  return { key, name: user === undefined ? key : `${user} (${key})` }
}

const approved = new WeakSet<CallContext>()

/** Others have agreed to this call. */
export const markApproved = (context: CallContext): void => void approved.add(context)
export const isApproved = (context: CallContext): boolean => approved.has(context)

/**
 * What the administrator who calls may do.
 *
 * @throws TypeError for a call that is not an administrator's: a handler that asks has a policy that lets others in.
 */
export function rightsOf(context: CallContext): Rights {
  const caller = callers.get(context)
  if (caller?.class === 'local' || caller?.class === 'admin') return caller.rights
  throw new TypeError(`${context.method} was not called by an administrator`)
}

/** The SPIFFE IDs that the administrator who calls is kept to in this method; undefined: any. */
export const prefixesOf = (context: CallContext): readonly SpiffeId[] | undefined =>
  rightsOf(context).permission(context.method)?.prefixes
