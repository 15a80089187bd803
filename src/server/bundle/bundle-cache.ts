import type { Bundle } from '#spiffe/bundle.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { Datastore } from '../datastore/datastore.ts'
import { follow } from '../datastore/follow.ts'

/** Every bundle of the datastore, in memory and kept up to date, so that agents that ask cost no query. */
export class BundleCache implements Disposable {
  readonly #bundles = new Map<TrustDomain, Bundle>()
  readonly #listeners = new Set<(trustDomain: TrustDomain) => void>()
  #following: Disposable | undefined

  private constructor() {}

  static async load(datastore: Datastore): Promise<BundleCache> {
    const cache = new BundleCache()
    cache.#following = await follow(datastore, {
      load: async () => {
        const { items } = await datastore.listBundles({ pageSize: 0, pageToken: '' })
        for (const bundle of items) cache.#bundles.set(bundle.trustDomain, bundle)
      },
      apply: (change) => {
        if (change.kind === 'bundle') cache.#set(change.key, change.value)
      },
    })
    return cache
  }

  bundle(trustDomain: TrustDomain): Bundle | undefined {
    return this.#bundles.get(trustDomain)
  }

  /** How many there are, the own trust domain’s included. */
  get size(): number {
    return this.#bundles.size
  }

  /** Calls back with the trust domain whose bundle was set or deleted. It must not throw. */
  onChange(listener: (trustDomain: TrustDomain) => void): Disposable {
    // A function of its own, so that one listener can be added twice.
    const own = (trustDomain: TrustDomain): void => listener(trustDomain)
    this.#listeners.add(own)
    return { [Symbol.dispose]: () => void this.#listeners.delete(own) }
  }

  [Symbol.dispose](): void {
    this.#following?.[Symbol.dispose]()
    this.#listeners.clear()
  }

  #set(trustDomain: TrustDomain, bundle: Bundle | undefined): void {
    if (bundle === undefined) this.#bundles.delete(trustDomain)
    else this.#bundles.set(trustDomain, bundle)
    for (const listener of this.#listeners) listener(trustDomain)
  }
}
