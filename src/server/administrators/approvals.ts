import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { Random } from '#base/random.ts'

/** Somebody who asks or decides. */
export interface Person {
  /** Tells persons apart: `uid 1000`, or a SPIFFE ID. */
  readonly key: string
  /** For people. */
  readonly name: string
}

/** A call that needs the agreement of others. */
export interface Wish {
  readonly method: string
  /** Lower-case hex of SHA-256 over method and request. */
  readonly hash: string
  readonly what: string
  /** The request for people: JSON. */
  readonly request: string
  readonly requester: Person
  /** How many have to agree beside who asks; at least one. */
  readonly needed: number
  /** Only who has all rights may agree. */
  readonly isPrivileged: boolean
  /** It may be begun again until it has ended well. */
  readonly isResumable: boolean
}

/** A wish that was remembered. */
export interface Approval extends Wish {
  readonly id: string
  readonly state: 'pending' | 'approved' | 'denied'
  readonly approvers: readonly Person[]
  readonly deniedBy: Person | undefined
  readonly requestedAtSeconds: number
  readonly expiresAtSeconds: number
}

/** An approved call while it is being made. */
export interface ApprovedUse {
  readonly approval: Approval
  /** To be called once when the call has ended. */
  end(wentWell: boolean): void
}

/** How long a wish waits for approval, and an approval to be used: seconds. */
export const approvalSeconds = 86_400
/** How many wishes are remembered, and of them one person's. */
export const maxWishes = 200
export const maxWishesPerPerson = 20

/**
 * Calls that wait for other administrators, in memory: a restart forgets them, and they are asked for again. An approval
 * is for one person's one request, byte for byte, and for one use; a resumable call uses it up by ending well.
 */
export class Approvals {
  readonly #clock: Clock
  readonly #random: Random
  readonly #byId = new Map<string, Approval>()
  readonly #inUse = new Set<string>()

  constructor({ clock, random }: { readonly clock: Clock; readonly random: Random }) {
    this.#clock = clock
    this.#random = random
  }

  /** Oldest first. */
  list(): readonly Approval[] {
    this.#forgetExpired()
    return [...this.#byId.values()]
  }

  /** How many wait. */
  get pending(): number {
    return this.list().filter(({ state }) => state === 'pending').length
  }

  get(id: string): Approval | undefined {
    this.#forgetExpired()
    return this.#byId.get(id)
  }

  /**
   * Begins an approved call. One that is not approved is remembered and refused.
   *
   * @throws AssayError `failed-precondition`, reason `approval-required` or `approval-denied`; `unavailable`, reason
   *   `approval-in-use`; `resource-exhausted`, reason `approvals-full`.
   */
  use(wish: Wish): ApprovedUse {
    const approval = this.#known(wish) ?? this.#remember(wish)
    if (approval.state === 'denied') {
      // Told once; who asks again asks anew.
      this.#byId.delete(approval.id)
      throw new AssayError(
        'failed-precondition',
        `cannot ${approval.what}: ${approval.deniedBy?.name} has denied request ${approval.id}; talk to each other, and run this again to ask anew`,
        { reason: 'approval-denied' },
      )
    }
    if (approval.state === 'pending') throw required(approval)
    if (this.#inUse.has(approval.id)) {
      // Whoever lost their stream a moment ago tries again, as with a server that is away.
      throw new AssayError(
        'unavailable',
        `cannot ${approval.what}: the call that request ${approval.id} was approved for is under way`,
        { reason: 'approval-in-use' },
      )
    }
    if (!approval.isResumable) {
      this.#byId.delete(approval.id)
      return { approval, end: () => {} }
    }
    this.#inUse.add(approval.id)
    return {
      approval,
      end: (wentWell) => {
        this.#inUse.delete(approval.id)
        if (wentWell) this.#byId.delete(approval.id)
      },
    }
  }

  /**
   * One more agrees; saying so twice counts once.
   *
   * @throws AssayError `not-found`; `permission-denied`, reason `approval-own`, to who asked; `failed-precondition` for
   *   one that was denied.
   */
  approve(id: string, person: Person): Approval {
    const approval = this.#existing(id)
    if (approval.requester.key === person.key) {
      throw new AssayError(
        'permission-denied',
        `cannot approve ${id}: ${person.name} asked for it, and another administrator has to agree`,
        { reason: 'approval-own' },
      )
    }
    if (approval.state === 'denied') throw wasDenied(approval)
    const said = approval.approvers.some(({ key }) => key === person.key)
    const approvers = said ? approval.approvers : [...approval.approvers, person]
    if (approval.state === 'approved') return approval
    const isApproved = approvers.length >= approval.needed
    return this.#replace({
      ...approval,
      approvers,
      ...(isApproved && {
        state: 'approved',
        expiresAtSeconds: this.#nowSeconds() + approvalSeconds,
      }),
    })
  }

  /**
   * It is not to be done.
   *
   * @throws AssayError `not-found`; `failed-precondition`, reason `approval-in-use`, while it is under way.
   */
  deny(id: string, person: Person): Approval {
    const approval = this.#existing(id)
    if (this.#inUse.has(id)) {
      throw new AssayError(
        'failed-precondition',
        `cannot deny ${id}: it was approved, and ${approval.requester.name} is about it now; have that interrupted, then deny it`,
        { reason: 'approval-in-use' },
      )
    }
    if (approval.requester.key === person.key) {
      this.#byId.delete(id)
      return { ...approval, state: 'denied', deniedBy: person }
    }
    return this.#replace({ ...approval, state: 'denied', deniedBy: person })
  }

  /** What was asked for as something lesser, and has come to need more since, is asked for anew. */
  #known(wish: Wish): Approval | undefined {
    const known = this.list().find(
      ({ hash, requester }) => hash === wish.hash && requester.key === wish.requester.key,
    )
    if (known === undefined || known.state === 'denied') return known
    const isLess = known.needed < wish.needed || (wish.isPrivileged && !known.isPrivileged)
    if (!isLess || this.#inUse.has(known.id)) return known
    this.#byId.delete(known.id)
    return undefined
  }

  #remember(wish: Wish): Approval {
    const own = this.list().filter(({ requester }) => requester.key === wish.requester.key)
    if (this.#byId.size >= maxWishes || own.length >= maxWishesPerPerson) {
      throw new AssayError(
        'resource-exhausted',
        `cannot ask for approval: ${own.length} requests of ${wish.requester.name} and ${this.#byId.size} in all wait already; 'assay approval list' shows them, 'assay approval deny ID' takes one back`,
        { reason: 'approvals-full' },
      )
    }
    const now = this.#nowSeconds()
    return this.#replace({
      ...wish,
      id: this.#newId(),
      state: 'pending',
      approvers: [],
      deniedBy: undefined,
      requestedAtSeconds: now,
      expiresAtSeconds: now + approvalSeconds,
    })
  }

  /** Short enough to be read out; nothing hangs on its being secret. */
  #newId(): string {
    for (;;) {
      const id = this.#random.bytes(4).toHex()
      if (!this.#byId.has(id)) return id
    }
  }

  #existing(id: string): Approval {
    const approval = this.get(id)
    if (approval !== undefined) return approval
    throw new AssayError(
      'not-found',
      `no request ${JSON.stringify(id.slice(0, 64))} waits for approval; 'assay approval list' shows those that do`,
      { reason: 'approval-not-found' },
    )
  }

  #replace(approval: Approval): Approval {
    this.#byId.set(approval.id, approval)
    return approval
  }

  #forgetExpired(): void {
    const now = this.#nowSeconds()
    for (const { id, expiresAtSeconds } of this.#byId.values()) {
      if (expiresAtSeconds <= now && !this.#inUse.has(id)) this.#byId.delete(id)
    }
  }

  #nowSeconds(): number {
    return Math.floor(this.#clock.now().epochMilliseconds / 1000)
  }
}

/** How many more have to agree. */
export const missingOf = ({ state, needed, approvers }: Approval): number =>
  state === 'pending' ? needed - approvers.length : 0

function required(approval: Approval): AssayError {
  const { id, what } = approval
  const missing = missingOf(approval)
  const whose = missing === 1 ? 'one more administrator' : `${missing} more administrators`
  return new AssayError(
    'failed-precondition',
    `cannot ${what} yet: ${whose} must agree to request ${id}, with 'assay approval approve ${id}'; then run this again`,
    { reason: 'approval-required' },
  )
}

const wasDenied = ({ id, deniedBy }: Approval): AssayError =>
  new AssayError('failed-precondition', `cannot approve ${id}: ${deniedBy?.name} has denied it`, {
    reason: 'approval-denied',
  })
