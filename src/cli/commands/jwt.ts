import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { all, type Command, nowSeconds, required, seconds } from '../command.ts'
import { connectServer, serverOptions } from '../daemons.ts'
import { timeLeftText, timeValue } from '../print.ts'
import { wireId } from '../wire.ts'

const mint: Command = {
  name: 'jwt mint',
  summary: 'make a JWT-SVID for any identity of the trust domain',
  options: [
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
    ...serverOptions,
  ],
  details: `
The token alone is on standard output. It is a bearer secret: whoever reads it may use it until it expires. No
attestation stands behind it: whoever may call this vouches for it. The call is logged.`,
  async run(context) {
    using connection = await connectServer(context)
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
        JSON.stringify({ token: svid?.token, expires_at: timeValue(svid?.expiresAt ?? 0) }),
      )
    }
    context.print(svid?.token ?? '')
    context.note(`until ${timeLeftText(svid?.expiresAt ?? 0, nowSeconds(context))}`)
  },
}

export const commands: readonly Command[] = [mint]
