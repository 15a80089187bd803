import type { MlDsaParameterSet } from '#pq-crypto/ml-dsa.ts'
import type { AlternativeKeys } from './alternative-keys.ts'
import type { AlternativeKey, KeyManager, KeyManagerStatus, SigningKey } from './key-manager.ts'

/** Keys of authorities, which are the ones that have another beside them. */
const hasAlternative = (id: string): boolean => /^(x509-ca|jwt)\//.test(id)

/**
 * A key manager whose keys of authorities have an ML-DSA key beside them: made before them, found with them and
 * destroyed after them, so that whatever rotates the ones rotates the others. Without a `parameterSet` none are made any
 * more, and those that are there go on.
 */
export function withAlternativeKeys(
  classical: KeyManager,
  {
    alternatives,
    parameterSet,
  }: {
    readonly alternatives: AlternativeKeys
    readonly parameterSet: MlDsaParameterSet | undefined
  },
): KeyManager {
  const paired = new WeakMap<SigningKey, SigningKey>()

  /** The same object for the same two keys: callers compare. */
  function pair(key: SigningKey): SigningKey {
    const alternative = alternatives.get(key.id)
    if (alternative === undefined) return key
    const known = paired.get(key)
    if (known?.alternative === alternative) return known
    const made = withAlternative(key, alternative)
    paired.set(key, made)
    return made
  }

  const status = (): KeyManagerStatus => {
    const { where: alternativeWhere, locked } = alternatives
    const present = { ...classical.status(), alternativeWhere }
    const isUp = present.state === 'ok' || present.state === 'degraded'
    if (locked === undefined || !isUp) return present
    // Without the one key nobody may conclude that the other is lost.
    return { ...present, state: 'down', detail: `post-quantum keys are not there: ${locked}` }
  }

  const listeners = new Set<(status: KeyManagerStatus) => void>()
  const tell = (): void => {
    for (const listener of listeners) listener(status())
  }
  const owned = new DisposableStack()
  owned.use(
    classical.onStatus(() => {
      const { state } = classical.status()
      const isUp = state === 'ok' || state === 'degraded'
      if (!isUp || alternatives.locked === undefined) return tell()
      // What is in the way stands in the status.
      void alternatives.unlock().then(tell, tell)
    }),
  )

  return {
    async generateKey(id, type, apartFrom) {
      // First: a server that dies in between finds no classical key, and makes both anew.
      const wanted = parameterSet !== undefined && hasAlternative(id)
      if (wanted && classical.key(id) === undefined) await alternatives.generate(id, parameterSet)
      return pair(await classical.generateKey(id, type, apartFrom))
    },
    key(id) {
      const key = classical.key(id)
      return key && pair(key)
    },
    keys: () => classical.keys().map(pair),
    async destroyKey(id) {
      await classical.destroyKey(id)
      await alternatives.destroy(id)
    },
    status,
    onStatus(listener) {
      listeners.add(listener)
      return { [Symbol.dispose]: () => void listeners.delete(listener) }
    },
    ...(classical.place && { place: (id) => classical.place?.(id) }),
    ...(classical.resume && { resume: () => classical.resume?.() ?? Promise.resolve() }),
    ...(classical.activity && { activity: () => classical.activity?.() ?? [] }),
    ...(classical.sealer && { sealer: classical.sealer }),
    async [Symbol.asyncDispose]() {
      owned.dispose()
      await classical[Symbol.asyncDispose]()
    },
  }
}

const withAlternative = (key: SigningKey, alternative: AlternativeKey): SigningKey => ({
  id: key.id,
  type: key.type,
  publicKey: key.publicKey,
  sign: (message) => key.sign(message),
  alternative,
})
