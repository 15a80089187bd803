import { AssayError } from '#base/errors.ts'
import type { CallContext } from '#rpc/call.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import { type SpiffeId, trustDomainOf } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { Administrators } from '../administrators/administrators.ts'
import { isCovered } from '../administrators/rights.ts'
import type { AuthorizedEntries } from '../entry/authorized-entries.ts'
import { isApproved, prefixesOf, rightsOf } from './caller.ts'
import { denied } from './denied.ts'

export interface GuardDependencies {
  readonly administrators: Pick<Administrators, 'ids'>
  readonly entries: Pick<AuthorizedEntries, 'isAdmin' | 'isDownstream' | 'entriesBelow'>
  /** Whether even those with all rights need the agreement of others for what gives rights. */
  readonly needsApproval: boolean
}

/**
 * Keeps administrators to their rights where that takes knowing what a call is about. Two rules stand behind all of
 * it: nobody touches what is outside of their SPIFFE ID prefixes, and nobody but who has all rights does anything by
 * which somebody could come to have more rights.
 */
export class Guard {
  readonly #administrators: GuardDependencies['administrators']
  readonly #entries: GuardDependencies['entries']

  readonly #needsApproval: boolean

  constructor({ administrators, entries, needsApproval }: GuardDependencies) {
    this.#administrators = administrators
    this.#entries = entries
    this.#needsApproval = needsApproval
  }

  /** An agent's ID, or one to mint for. @throws AssayError `permission-denied`. */
  checkId(context: CallContext, id: SpiffeId): void {
    const prefixes = prefixesOf(context)
    if (isCovered(id, prefixes)) return
    throw outside(context, id, prefixes)
  }

  /** An ID that somebody is to get an SVID of. @throws AssayError `permission-denied`. */
  checkIssue(context: CallContext, id: SpiffeId): void {
    this.checkId(context, id)
    if (this.isPrivileged(id)) this.checkAll(context, `${id} has rights of its own here`)
  }

  /** An entry that is there, to be shown. @throws AssayError `permission-denied`. */
  checkShown(context: CallContext, entry: RegistrationEntry): void {
    const prefixes = prefixesOf(context)
    // Its ID is not for the caller to know.
    if (!isCovered(entry.spiffeId, prefixes)) throw outside(context, `entry ${entry.id}`, prefixes)
  }

  /** An entry that is there, to be changed or deleted. @throws AssayError `permission-denied`. */
  checkStored(context: CallContext, entry: RegistrationEntry): void {
    this.checkShown(context, entry)
    this.#checkFlags(context, entry)
  }

  /**
   * An entry as it is to be. Who is kept to some IDs may not give a node one that has others below it, either, nor who
   * has not all rights one that has administrators below it: the node could then serve those.
   *
   * @throws AssayError `permission-denied`.
   */
  checkWritten(context: CallContext, entry: RegistrationEntry): void {
    this.checkId(context, entry.spiffeId)
    this.#checkFlags(context, entry)
    if (!this.#mayGiveRights(context) && this.isAbovePrivileged(entry.spiffeId)) {
      this.checkAll(
        context,
        `entries that give rights are below ${entry.spiffeId}, so that whoever serves it could serve those`,
      )
    }
    const prefixes = prefixesOf(context)
    if (prefixes === undefined) return
    const beyond = this.#entries
      .entriesBelow(entry.spiffeId)
      .some(({ spiffeId }) => !isCovered(spiffeId, prefixes))
    if (!beyond) return
    throw denied(context.method, {
      reason: 'outside-prefixes',
      why: `entries outside of ${listed(prefixes)} are below ${entry.spiffeId}, so that whoever serves it could serve them; ask an administrator who may touch those`,
    })
  }

  /** The bundle of another trust domain, to be changed. @throws AssayError `permission-denied`. */
  checkBundle(context: CallContext, trustDomain: TrustDomain): void {
    if (this.isAdministering(trustDomain)) {
      this.checkAll(context, `${trustDomain} has administrators here, whom its bundle vouches for`)
    }
  }

  /** For what gives rights to somebody; `why` says how. @throws AssayError `permission-denied`. */
  checkAll(context: CallContext, why: string): void {
    if (this.#mayGiveRights(context)) return
    const rights = rightsOf(context)
    if (rights.areAll) {
      // It was not so when the call began, or it would have been asked for.
      throw new AssayError('failed-precondition', `cannot go on: ${why}; run this again`, {
        reason: 'approval-required',
      })
    }
    throw denied(context.method, {
      reason: 'needs-all-rights',
      why: `${why}; ${rights.holder} has not all rights, and this needs an administrator who has`,
    })
  }

  /** Whether an SVID of this ID is more than a workload's: an administrator's or a downstream server's. */
  isPrivileged(id: SpiffeId): boolean {
    return (
      this.#administrators.ids.has(id) ||
      this.#entries.isAdmin(id) ||
      this.#entries.isDownstream(id)
    )
  }

  /** Whether a node that serves this ID could serve one that has rights. */
  isAbovePrivileged(id: SpiffeId): boolean {
    return this.#entries.entriesBelow(id).some(({ spiffeId }) => this.isPrivileged(spiffeId))
  }

  /** Whether another trust domain has IDs that administer here. */
  isAdministering(trustDomain: TrustDomain): boolean {
    return [...this.#administrators.ids].some((id) => trustDomainOf(id) === trustDomain)
  }

  #mayGiveRights(context: CallContext): boolean {
    return rightsOf(context).areAll && (!this.#needsApproval || isApproved(context))
  }

  #checkFlags(context: CallContext, entry: RegistrationEntry): void {
    if (entry.admin || entry.downstream) {
      const flag = entry.admin ? 'admin' : 'downstream'
      this.checkAll(context, `the entry has the ${flag} flag, which gives rights`)
    }
    if (this.isPrivileged(entry.spiffeId)) {
      this.checkAll(context, `${entry.spiffeId} has rights of its own here`)
    }
  }
}

const listed = (prefixes: readonly SpiffeId[] = []): string => prefixes.join(', ')

function outside(
  context: CallContext,
  what: string,
  prefixes: readonly SpiffeId[] | undefined,
): AssayError {
  const { holder } = rightsOf(context)
  return denied(context.method, {
    reason: 'outside-prefixes',
    why: `${holder} may touch only ${listed(prefixes)} and what is below, and ${what} is not; whoever may change server.yaml can add to spiffe_id_prefixes`,
  })
}
