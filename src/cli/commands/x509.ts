import { sign } from 'node:crypto'
import { createCsr } from '#pki/csr.ts'
import { encodePem } from '#pki/pem.ts'
import { exportPkcs8, generateEcKeyPair } from '#pki/private-key.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import {
  all,
  type Command,
  nowSeconds,
  optional,
  printText,
  required,
  seconds,
} from '../command.ts'
import { connectServer, serverOptions } from '../daemons.ts'
import { timeLeftText, timeValue } from '../print.ts'
import { certificatesPem, writeSvidFiles } from '../svid-files.ts'
import { inspect } from './x509-inspect.ts'

const mint: Command = {
  name: 'x509 mint',
  summary: 'make a key and an X.509-SVID for any identity of the trust domain',
  options: [
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
    ...serverOptions,
  ],
  details:
    'No attestation stands behind such an SVID: whoever may call this vouches for it. The call is logged.',
  async run(context) {
    const spiffeId = parseSpiffeId(required(context, 'spiffe-id'))
    const { privateKey, publicKey } = generateEcKeyPair('ec-p256')
    const csr = createCsr({
      publicKey,
      sign: (tbs) => sign('sha256', tbs, privateKey),
      uris: [spiffeId],
      dnsNames: all(context, 'dns'),
    })
    const ttl = seconds(context, 'ttl', 0)
    using connection = await connectServer(context)
    const options = { signal: context.signal }
    const { svid } = await connection.client(SVIDDefinition).mintX509SVID({ csr, ttl }, options)
    const bundle = await connection.client(BundleDefinition).getBundle({}, options)
    const chain = svid?.certChain ?? []
    const files = [
      { name: 'svid.pem', content: certificatesPem(chain) },
      {
        name: 'key.pem',
        content: encodePem('PRIVATE KEY', exportPkcs8(privateKey)),
        secret: true,
      },
      {
        name: 'bundle.pem',
        content: certificatesPem(bundle.x509Authorities.map(({ asn1 }) => asn1)),
      },
    ]
    const expiresAt = svid?.expiresAt ?? 0
    const directory = optional(context, 'write')
    const written = directory === undefined ? [] : await writeSvidFiles(directory, files, context)
    const [svidPem, keyPem, bundlePem] = files.map(({ content }) => content)
    if (context.json) {
      const shown =
        directory === undefined ? { svid: svidPem, key: keyPem, bundle: bundlePem } : { written }
      const expiry = timeValue(expiresAt)
      return context.print(JSON.stringify({ spiffe_id: spiffeId, expires_at: expiry, ...shown }))
    }
    if (directory === undefined)
      printText(
        context,
        files
          .map(({ content }) => content)
          .join('\n')
          .trimEnd(),
      )
    for (const path of written) context.note(`wrote ${path}`)
    context.note(`${spiffeId}, until ${timeLeftText(expiresAt, nowSeconds(context))}`)
  },
}

export const commands: readonly Command[] = [mint, inspect]
