import type { Bundle } from '#spiffe/bundle.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { Datastore } from '../datastore/datastore.ts'

/** The bundle of the server's own trust domain, kept in memory as the datastore has it. */
export class OwnBundle implements Disposable {
  readonly #datastore: Pick<Datastore, 'updateBundle'>
  readonly #trustDomain: TrustDomain
  readonly #refreshHintSeconds: number
  readonly #watch: Disposable
  #present: Bundle | undefined

  private constructor(
    datastore: Pick<Datastore, 'updateBundle' | 'watch'>,
    start: { readonly trustDomain: TrustDomain; readonly refreshHintSeconds: number },
  ) {
    this.#datastore = datastore
    this.#trustDomain = start.trustDomain
    this.#refreshHintSeconds = start.refreshHintSeconds
    this.#watch = datastore.watch((change) => {
      if (change.kind !== 'bundle' || change.key !== start.trustDomain) return
      if (change.value === undefined) this.#present = undefined
      else this.#take(change.value)
    })
  }

  /** `refreshHintSeconds` is for a bundle that has to be made first. */
  static async open(
    datastore: Pick<Datastore, 'bundle' | 'updateBundle' | 'watch'>,
    start: { readonly trustDomain: TrustDomain; readonly refreshHintSeconds: number },
  ): Promise<OwnBundle> {
    const bundle = new OwnBundle(datastore, start)
    const present = await datastore.bundle(start.trustDomain)
    if (present !== undefined) bundle.#take(present)
    return bundle
  }

  /** Without authorities when there is none yet. */
  get present(): Bundle {
    return this.#present ?? this.#empty()
  }

  /** Changes the bundle in the datastore, durably, and then here. `change` may return what it was given. */
  async update(change: (bundle: Bundle) => Bundle): Promise<void> {
    const trustDomain = this.#trustDomain
    this.#take(
      await this.#datastore.updateBundle(trustDomain, (found) => change(found ?? this.#empty())),
    )
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]()
  }

  /** A change can be told of after a newer one has been read. */
  #take(bundle: Bundle): void {
    const held = this.#present
    if (held === undefined || bundle.sequenceNumber >= held.sequenceNumber) this.#present = bundle
  }

  #empty(): Bundle {
    return {
      trustDomain: this.#trustDomain,
      x509Authorities: [],
      jwtAuthorities: [],
      refreshHintSeconds: this.#refreshHintSeconds,
      sequenceNumber: 0n,
    }
  }
}
