import type { MlDsaParameterSet } from '#pq-crypto/ml-dsa.ts'
import type { AlternativeKeys } from './alternative-keys.ts'
import type { AlternativeKey, KeyManager, KeyManagerStatus, SigningKey } from './key-manager.ts'

/** Keys of X.509 authorities, which are the ones that have another beside them. */
const hasAlternative = (id: string): boolean => id.startsWith('x509-ca/')

/**
 * A key manager whose keys of X.509 authorities have an ML-DSA key beside them: made before them, found with them and
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

  const status = (): KeyManagerStatus => ({
    ...classical.status(),
    alternativeWhere: alternatives.where,
  })

  return {
    async generateKey(id, type) {
      // First: a server that dies in between finds no classical key, and makes both anew.
      const wanted = parameterSet !== undefined && hasAlternative(id)
      if (wanted && classical.key(id) === undefined) await alternatives.generate(id, parameterSet)
      return pair(await classical.generateKey(id, type))
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
    ...(classical.activity && { activity: () => classical.activity?.() ?? [] }),
    onStatus: (listener) => classical.onStatus(() => listener(status())),
    ...(classical.resume && { resume: () => classical.resume?.() ?? Promise.resolve() }),
    [Symbol.asyncDispose]: () => classical[Symbol.asyncDispose](),
  }
}

const withAlternative = (key: SigningKey, alternative: AlternativeKey): SigningKey => ({
  id: key.id,
  type: key.type,
  publicKey: key.publicKey,
  sign: (message) => key.sign(message),
  alternative,
})
