import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SystemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { openAlternativeKeys } from '#server/plugin/key-manager/alternative-keys.ts'
import { openDiskKeyManager } from '#server/plugin/key-manager/disk.ts'
import { withAlternativeKeys } from '#server/plugin/key-manager/hybrid.ts'
import { newMemoryKeyManager } from '#server/plugin/key-manager/memory.ts'
import { openPkcs11KeyManager } from '#server/plugin/key-manager/pkcs11.ts'
import { TokenPair } from '#server/plugin/key-manager/token-pair.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { testKeyManager } from '../contract/key-manager.ts'
import { startSignerService } from '../support/signer-service.ts'
import { newSoftHsm, type SoftHsm } from '../support/softhsm.ts'

testKeyManager({
  name: 'memory',
  isDurable: false,
  newStore: async () => ({
    open: async () => newMemoryKeyManager(),
    async [Symbol.asyncDispose]() {},
  }),
})

testKeyManager({
  name: 'disk',
  isDurable: true,
  async newStore() {
    const directory = await mkdtemp(join(tmpdir(), 'assay-keys-'))
    return {
      open: () =>
        openDiskKeyManager({ path: join(directory, 'keys', 'keys.json'), log: silentLog }),
      [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
    }
  },
})

testKeyManager({
  name: 'disk with post-quantum keys beside',
  isDurable: true,
  async newStore() {
    const directory = await mkdtemp(join(tmpdir(), 'assay-keys-'))
    return {
      async open() {
        const path = join(directory, 'pq.json')
        const random = new SystemRandom()
        return withAlternativeKeys(
          await openDiskKeyManager({ path: join(directory, 'keys.json'), log: silentLog }),
          {
            alternatives: await openAlternativeKeys({
              path,
              sealer: undefined,
              random,
              log: silentLog,
            }),
            parameterSet: 'ml-dsa-44',
          },
        )
      },
      [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
    }
  },
})

testKeyManager({
  name: 'pkcs11',
  isDurable: true,
  async newStore() {
    const token = await newSoftHsm()
    return {
      open: () =>
        openPkcs11KeyManager({
          module: token.module,
          tokenLabel: token.tokenLabel,
          pinFile: token.pinFile,
          environment: token.environment,
          trustDomain: parseTrustDomain('example.org'),
          clock: new SystemClock(),
          monotonicMs: () => performance.now(),
          random: new SystemRandom(),
          log: silentLog,
        }),
      [Symbol.asyncDispose]: () => token[Symbol.asyncDispose](),
    }
  },
})

testKeyManager({
  name: 'pkcs11 behind the socket of a service',
  isDurable: true,
  async newStore() {
    const token = await newSoftHsm()
    const { module, tokenLabel, pinFile, directory, environment } = token
    const service = await startSignerService({
      ...{ directory, environment },
      token: `module: ${module}, token_label: ${tokenLabel}, pin_file: ${pinFile}`,
    })
    return {
      open: () =>
        openPkcs11KeyManager({
          ...{ module, tokenLabel, signerSocketPath: service.socketPath },
          trustDomain: parseTrustDomain('example.org'),
          clock: new SystemClock(),
          monotonicMs: () => performance.now(),
          random: new SystemRandom(),
          log: silentLog,
        }),
      async [Symbol.asyncDispose]() {
        await service[Symbol.asyncDispose]()
        await token[Symbol.asyncDispose]()
      },
    }
  },
})

testKeyManager({
  name: 'pair of tokens',
  isDurable: true,
  async newStore() {
    const tokens = [await newSoftHsm(), await newSoftHsm()] as const
    const open = ({ module, tokenLabel, pinFile, environment }: SoftHsm) =>
      openPkcs11KeyManager({
        ...{ module, tokenLabel, pinFile, environment },
        trustDomain: parseTrustDomain('example.org'),
        clock: new SystemClock(),
        monotonicMs: () => performance.now(),
        random: new SystemRandom(),
        log: silentLog,
      })
    return {
      open: async () => {
        const [first, second] = [await open(tokens[0]), await open(tokens[1])]
        return new TokenPair(first, second, {
          promoteAfter: Temporal.Duration.from({ minutes: 5 }),
          monotonicMs: () => performance.now(),
        })
      },
      async [Symbol.asyncDispose]() {
        for (const token of tokens) await token[Symbol.asyncDispose]()
      },
    }
  },
})
