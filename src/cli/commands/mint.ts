import { sign } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseCertificate } from '#pki/certificate.ts'
import { createCsr } from '#pki/csr.ts'
import { encodePem } from '#pki/pem.ts'
import { exportPkcs8, generateEcKeyPair } from '#pki/private-key.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import { all, type Command, optional, required, seconds } from '../command.ts'
import { connectServer, serverOptions } from '../daemons.ts'
import { timeText } from '../print.ts'
import { wireId } from '../wire.ts'

const x509: Command = {
  name: 'x509 mint',
  summary: 'make a key and an X.509-SVID for any identity of the trust domain',
  options: [
    ...serverOptions,
    { name: 'spiffe-id', value: 'ID', required: true, summary: 'whose SVID' },
    {
      name: 'ttl',
      value: 'DURATION',
      summary: "how long it lives; the server's default when absent",
    },
    { name: 'dns', value: 'NAME', multiple: true, summary: 'DNS name in the SVID' },
    {
      name: 'write',
      value: 'DIRECTORY',
      summary: 'write svid.pem, key.pem and bundle.pem there instead of printing',
    },
  ],
  details:
    'No attestation stands behind such an SVID: whoever may call this vouches for it. The call is audited.',
  async run(context) {
    const spiffeId = parseSpiffeId(required(context, 'spiffe-id'))
    const { privateKey, publicKey } = generateEcKeyPair('ec-p256')
    const csr = createCsr({
      publicKey,
      sign: (tbs) => sign('sha256', tbs, privateKey),
      uris: [spiffeId],
      dnsNames: all(context, 'dns'),
    })
    using connection = connectServer(context)
    const options = { signal: context.signal }
    const { svid } = await connection
      .client(SVIDDefinition)
      .mintX509SVID({ csr, ttl: seconds(context, 'ttl', 0) }, options)
    const bundle = await connection.client(BundleDefinition).getBundle({}, options)
    const files = {
      'svid.pem': (svid?.certChain ?? []).map((der) => encodePem('CERTIFICATE', der)).join(''),
      'key.pem': encodePem('PRIVATE KEY', exportPkcs8(privateKey)),
      'bundle.pem': bundle.x509Authorities
        .map(({ asn1 }) => encodePem('CERTIFICATE', asn1))
        .join(''),
    }
    const [leaf] = svid?.certChain ?? []
    const expiresAt = leaf === undefined ? 0 : parseCertificate(leaf).notAfterSeconds
    const directory = optional(context, 'write')
    if (directory !== undefined) {
      await mkdir(directory, { recursive: true })
      for (const [name, content] of Object.entries(files)) {
        await writeFile(join(directory, name), content, {
          mode: name === 'key.pem' ? 0o600 : 0o644,
        })
        if (!context.json) context.note(`wrote ${join(directory, name)}`)
      }
    }
    if (context.json) {
      const shown =
        directory === undefined
          ? { svid: files['svid.pem'], key: files['key.pem'], bundle: files['bundle.pem'] }
          : {}
      return context.print(
        JSON.stringify({ spiffe_id: spiffeId, expires_at: timeText(expiresAt), ...shown }),
      )
    }
    if (directory === undefined) context.print(Object.values(files).join('\n').trimEnd())
    context.note(`${spiffeId} until ${timeText(expiresAt)}`)
  },
}

const jwt: Command = {
  name: 'jwt mint',
  summary: 'make a JWT-SVID for any identity of the trust domain',
  options: [
    ...serverOptions,
    { name: 'spiffe-id', value: 'ID', required: true, summary: 'whose token' },
    {
      name: 'audience',
      value: 'NAME',
      multiple: true,
      required: true,
      summary: 'who the token is for',
    },
    {
      name: 'ttl',
      value: 'DURATION',
      summary: "how long it lives; the server's default when absent",
    },
  ],
  async run(context) {
    using connection = connectServer(context)
    const { svid } = await connection.client(SVIDDefinition).mintJWTSVID(
      {
        id: wireId(required(context, 'spiffe-id')),
        audience: [...all(context, 'audience')],
        ttl: seconds(context, 'ttl', 0),
      },
      { signal: context.signal },
    )
    if (context.json) {
      return context.print(
        JSON.stringify({ token: svid?.token, expires_at: timeText(svid?.expiresAt ?? 0) }),
      )
    }
    context.print(svid?.token ?? '')
  },
}

export const mintCommands: readonly Command[] = [x509, jwt]
