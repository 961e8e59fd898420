import { expect, test } from "vitest";

import { imageUser } from "./image-status.ts";

test.each([
  ["", {}],
  ["1002", { uid: "1002" }],
  ["0", { uid: "0" }],
  ["1003:1004", { uid: "1003" }],
  ["www-data", { username: "www-data" }],
  ["www-data:1004", { username: "www-data" }],
  ["4294967294", { uid: "4294967294" }],
  ["4294967295", {}],
  ["99999999999999999999", {}],
  [":5", {}],
])("the image user %j is told as %j", (user, told) => {
  const { uid, username } = imageUser(user);
  expect({ ...(uid && { uid: `${uid.value}` }), ...(username && { username }) }).toEqual(told);
});
