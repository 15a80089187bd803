import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { isMlDsaSignedBy, parseMlDsaPublicKey } from '#pq-crypto/ml-dsa.ts'
import { newAlternativeKeysInMemory } from './alternative-keys.ts'
import { withAlternativeKeys } from './hybrid.ts'
import type { KeyManager } from './key-manager.ts'
import { newMemoryKeyManager } from './memory.ts'

const parts = () => ({
  classical: newMemoryKeyManager(),
  alternatives: newAlternativeKeysInMemory(),
})

test('withAlternativeKeys() makes a key beside each of authorities, that signs and is the same when asked for', async () => {
  const { classical, alternatives } = parts()
  const manager = withAlternativeKeys(classical, { alternatives, parameterSet: 'ml-dsa-65' })
  const key = await manager.generateKey('x509-ca/A/1', 'ec-p256')
  assert.equal(key.alternative?.parameterSet, 'ml-dsa-65')
  const message = Uint8Array.of(1, 2, 3)
  const signing = key.alternative.sign(message)
  // The caller may go on with its array at once.
  message.fill(0)
  const signature = await signing
  const verifier = parseMlDsaPublicKey(key.alternative.publicKey)
  assert.ok(isMlDsaSignedBy(verifier, { message: Uint8Array.of(1, 2, 3), signature }))
  assert.equal(manager.key('x509-ca/A/1'), key)
  assert.deepEqual(manager.keys(), [key])
  const jwt = await manager.generateKey('jwt/A/1', 'ec-p256')
  assert.equal(jwt.alternative?.parameterSet, 'ml-dsa-65')
  assert.equal((await manager.generateKey('other', 'ec-p256')).alternative, undefined)
  assert.equal(manager.status().alternativeWhere, 'memory')
})

test('withAlternativeKeys() without a parameter set goes on with the keys there are', async () => {
  const { classical, alternatives } = parts()
  const on = withAlternativeKeys(classical, { alternatives, parameterSet: 'ml-dsa-44' })
  await on.generateKey('x509-ca/A/1', 'ec-p256')
  const off = withAlternativeKeys(classical, { alternatives, parameterSet: undefined })
  assert.equal(off.key('x509-ca/A/1')?.alternative?.parameterSet, 'ml-dsa-44')
  assert.equal((await off.generateKey('x509-ca/B/1', 'ec-p256')).alternative, undefined)
})

test('withAlternativeKeys() makes both anew when a server died between the two', async () => {
  const { classical, alternatives } = parts()
  const left = await alternatives.generate('x509-ca/A/1', 'ml-dsa-44')
  const manager = withAlternativeKeys(classical, { alternatives, parameterSet: 'ml-dsa-87' })
  assert.equal(manager.key('x509-ca/A/1'), undefined)
  const key = await manager.generateKey('x509-ca/A/1', 'ec-p256')
  assert.equal(key.alternative?.parameterSet, 'ml-dsa-87')
  assert.notEqual(key.alternative, left)
})

test('withAlternativeKeys() keeps the key beside one that is there, when asked to make it again', async () => {
  const { classical, alternatives } = parts()
  const manager = withAlternativeKeys(classical, { alternatives, parameterSet: 'ml-dsa-44' })
  const key = await manager.generateKey('x509-ca/A/1', 'ec-p256')
  await assert.rejects(manager.generateKey('x509-ca/A/1', 'ec-p256'), { code: 'already-exists' })
  assert.equal(manager.key('x509-ca/A/1'), key)
  await manager.destroyKey('x509-ca/A/1')
  assert.equal(alternatives.get('x509-ca/A/1'), undefined)
})

test('withAlternativeKeys() is down while its keys are locked, unlocks them when the HSM is back, and then tells', async () => {
  let state: 'ok' | 'down' = 'down'
  let locked: string | undefined = 'the hsm is away'
  const listeners = new Set<() => void>()
  const classical: KeyManager = {
    ...newMemoryKeyManager(),
    status: () => ({ state, detail: state, where: 'test' }),
    onStatus: (listener) => {
      const call = () => listener(classical.status())
      listeners.add(call)
      return { [Symbol.dispose]: () => void listeners.delete(call) }
    },
  }
  const alternatives = {
    ...newAlternativeKeysInMemory(),
    where: 'test',
    get locked() {
      return locked
    },
    async unlock() {
      locked = undefined
    },
  }
  const manager = withAlternativeKeys(classical, { alternatives, parameterSet: 'ml-dsa-44' })
  const told: string[] = []
  using _listening = manager.onStatus((status) => told.push(status.state))
  assert.equal(manager.status().detail, 'down')
  state = 'ok'
  assert.match(manager.status().detail, /^post-quantum keys are not there: the hsm is away$/)
  assert.equal(manager.status().state, 'down')
  for (const listener of listeners) listener()
  await setImmediate()
  assert.deepEqual(told, ['ok'])
  await manager[Symbol.asyncDispose]()
  assert.equal(listeners.size, 0)
})
