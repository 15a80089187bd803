import { sign } from 'node:crypto'
import { SystemClock } from '#base/clock.ts'
import { createCsr } from '#pki/csr.ts'
import { generateEcKeyPair, type KeyPair } from '#pki/private-key.ts'
import { type Connection, connectTls, connectUnix } from '#rpc/client.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'

/** Where the server under test is. */
export interface ServerAddress {
  readonly host: string
  readonly port: number
  /** Its administration socket. */
  readonly socket: string
}

/** A request for an SVID over a fresh key. */
export function newCsr(keyPair: KeyPair = generateEcKeyPair('ec-p256')): Uint8Array {
  const { privateKey, publicKey } = keyPair
  return createCsr({ publicKey, sign: (tbs) => sign('sha256', tbs, privateKey) })
}

/** Whom it talks to is not what is measured here. */
const verifyServer = (): void => {}

/** Attests by a join token on a TLS connection of its own, as an agent does at its first start. */
export async function attest(
  { host, port }: ServerAddress,
  token: string,
  keyPair: KeyPair,
): Promise<{ readonly id: string; readonly certificates: readonly Uint8Array[] }> {
  using connection = connectTls({ host, port, verifyServer, clock: new SystemClock() })
  using call = connection.client(AgentDefinition).attestAgent()
  await call.send({
    step: {
      $case: 'params',
      value: {
        data: { type: 'join_token', payload: new TextEncoder().encode(token) },
        params: { csr: newCsr(keyPair) },
      },
    },
  })
  const answer = await call.receive()
  call.end()
  if (answer?.step?.$case !== 'result') throw new Error('the server did not answer with a result')
  const { svid } = answer.step.value
  return {
    id: `spiffe://${svid?.id?.trustDomain}${svid?.id?.path}`,
    certificates: svid?.certChain ?? [],
  }
}

/** One-time secrets for `attest`. */
export async function joinTokens({ socket }: ServerAddress, count: number): Promise<string[]> {
  using connection = connectUnix(socket, { clock: new SystemClock() })
  const client = connection.client(AgentDefinition)
  const tokens: string[] = []
  let left = count
  const worker = async (): Promise<void> => {
    while (left-- > 0) tokens.push((await client.createJoinToken({ ttl: 3600, token: '' })).value)
  }
  await Promise.all(Array.from({ length: 16 }, worker))
  return tokens
}

/** A connection as an attested agent, over which an agent's calls can be made. */
export async function openAgentSession(
  address: ServerAddress,
): Promise<{ readonly id: string; readonly connection: Connection }> {
  const keyPair = generateEcKeyPair('ec-p256')
  const [token = ''] = await joinTokens(address, 1)
  const { id, certificates } = await attest(address, token, keyPair)
  const identity = { key: keyPair.privateKey, certificates }
  const { host, port } = address
  const connection = connectTls({ host, port, verifyServer, identity, clock: new SystemClock() })
  return { id, connection }
}
