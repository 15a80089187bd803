import { AssayError } from '#base/errors.ts'
import { verifyKeyId } from './key-id.ts'
import type { KeyManager, KeyManagerStatus, SigningKey } from './key-manager.ts'
import { generateSoftwareKey, softwareSigningKey } from './software-key.ts'

const status: KeyManagerStatus = { state: 'ok', detail: '', where: 'memory' }

/** Keys that end with the process: for tests, and for servers whose CA may be new after each start. */
export function newMemoryKeyManager(): KeyManager {
  const keys = new Map<string, SigningKey>()
  const beingMade = new Set<string>()
  return {
    async generateKey(id, type) {
      verifyKeyId(id)
      if (keys.has(id) || beingMade.has(id)) {
        throw new AssayError(
          'already-exists',
          `cannot generate key ${id}: there is one of that name`,
        )
      }
      beingMade.add(id)
      try {
        const key = softwareSigningKey(id, { type, privateKey: await generateSoftwareKey(type) })
        keys.set(id, key)
        return key
      } finally {
        beingMade.delete(id)
      }
    },
    key: (id) => keys.get(id),
    keys: () => [...keys.values()],
    destroyKey: async (id) => void keys.delete(id),
    status: () => status,
    onStatus: () => ({ [Symbol.dispose]() {} }),
    async [Symbol.asyncDispose]() {
      keys.clear()
    },
  }
}
